"""Write the gRPC stubs of protos/ to services/drpo_rewards/v1, or with --check only report whether they are up to date.

    python protos/generate.py            # write
    python protos/generate.py --check    # for CI: list stale files and exit with 1

Needs the `dev` extra: its pin of grpcio-tools sets the version of the generated code.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "protos" / "drpo" / "rewards" / "v1"
TARGET = ROOT / "services" / "drpo_rewards" / "v1"
PACKAGE = "drpo_rewards/v1"


def generate(folder: Path) -> list[Path]:
    """Run protoc on every proto, and return the files that it wrote to folder/drpo_rewards/v1."""
    import grpc_tools
    from grpc_tools import protoc

    includes = Path(grpc_tools.__file__).parent / "_proto"
    protos = [f"{PACKAGE}/{path.name}" for path in sorted(SOURCE.glob("*.proto"))]
    # The virtual path makes the generated modules import each other as drpo_rewards.v1.*, which is where they are.
    arguments = [f"-I{PACKAGE}={SOURCE}", f"-I{includes}"]
    arguments += [f"--python_out={folder}", f"--pyi_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *arguments, *protos]) != 0:
        raise SystemExit("protoc failed: see its messages above")
    stubs = sorted((folder / PACKAGE).glob("*_pb2*.py*"))
    for stub in stubs:
        stub.write_text(accept_older_packages(stub.read_text(encoding="utf-8")), encoding="utf-8")
    return stubs


def accept_older_packages(stub: str) -> str:
    """Remove what refuses packages older than the generator's, so that a client can be installed beside others' pins.

    These are the checks of the versions of protobuf and grpcio, and an argument that only saves time. The messages
    themselves are the same; tests/clients uses them with the oldest packages that the base install allows.
    """
    for pattern in (
        r"from google.protobuf import runtime_version as _runtime_version\n",
        r"_runtime_version\.ValidateProtobufRuntimeVersion\(.*?\n\)\n",
        r"^GRPC_GENERATED_VERSION = .*?^    \)\n",
        r"(?<=\n)import warnings\n",
        r",\n *_registered_method=True",
    ):
        stub = re.sub(pattern, "", stub, flags=re.M | re.S)
    return stub


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed stubs instead of writing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = {path.name: path.read_bytes() for path in generate(Path(folder))}
    committed = {path.name: path.read_bytes() for path in TARGET.glob("*_pb2*.py*")}
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    if check:
        for name in stale:
            print(f"stale: {(TARGET / name).relative_to(ROOT)} (run `python protos/generate.py`)", file=sys.stderr)
        return 1 if stale else 0
    TARGET.mkdir(exist_ok=True)
    for name in committed.keys() - fresh.keys():
        (TARGET / name).unlink()
    for name, content in fresh.items():
        (TARGET / name).write_bytes(content)
    print(f"{len(fresh)} stubs in {TARGET.relative_to(ROOT)}, {len(stale)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
