"""The command line of the benchmark; see the package's docstring."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.gpu.parts import PARTS
from bench.gpu.runner import run_all, run_part


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.gpu", description="Measure the project on one GPU.")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu"), help="folder of the results")
    parser.add_argument(
        "--scratch", type=Path, help="folder of the random checkpoints, 20 GB; by default a temporary one"
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="tiny networks, for a test of this script")
    parser.add_argument("--limit-s", type=float, default=470, help="seconds for all parts; the rest is skipped")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # one part, in this process
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.only if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; parts are {', '.join(PARTS)}")
    if arguments.part is not None:
        run_part(arguments.part, arguments.out, arguments.scratch, arguments.small)
        return 0
    return run_all(arguments.only, arguments.out, arguments.scratch, arguments.small, arguments.limit_s)


if __name__ == "__main__":
    sys.exit(main())
