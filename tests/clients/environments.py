"""Environments of their own for packages of others, made with pip and npm from their registries.

They are kept from run to run in `clients/` inside the environment that runs the tests, or in $DRPO_CLIENT_ENVIRONMENTS.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("DRPO_CLIENT_ENVIRONMENTS", Path(sys.prefix) / "clients"))

QUERY = "a red circle"


@dataclass(frozen=True)
class Task:
    """What each client is asked: the documents, and their order by our own client."""

    url: str
    documents: list[str]
    order: list[int]

    def as_json(self) -> str:
        """What programs in other environments read."""
        return json.dumps({"url": self.url, "query": QUERY, "documents": self.documents})


def find_python(version: str) -> str:
    """A Python of this version, from the PATH or from pyenv. Skips the test if there is none."""
    names = [
        f"python{version}",
        *map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))),
    ]
    for name in names:
        found = shutil.which(name)
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    pytest.skip(f"there is no Python {version} here")


def make_environment(name: str, packages: Sequence[str], python: str = sys.executable, beside: bool = False) -> str:
    """The path of a Python that has these packages. It is made again when the packages change.

    Args:
        name: of the environment.
        packages: with their versions, or a folder with a package.
        python: the Python that it is made from.
        beside: take everything that the packages need from the environment that runs the tests.
    """
    folder = FOLDER / name
    installed = folder / "packages.json"
    wanted = json.dumps([python, *map(_describe, packages)])
    if not installed.exists() or installed.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        run_command([python, "-m", "venv", "--without-pip", str(folder)])
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
        run_command([*pip, "install", "--quiet", *(["--no-deps"] if beside else []), *packages])
        if beside:
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            added = folder / "lib" / version / "site-packages" / "beside.pth"
            added.write_text(sysconfig.get_path("purelib"))
        installed.write_text(wanted)
    return str(folder / "bin" / "python")


def make_node_modules(name: str, packages: Sequence[str]) -> Path:
    """A folder with these packages of npm. Skips the test if there is no npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm here")
    folder = FOLDER / name
    installed = folder / "packages.json"
    if not installed.exists() or installed.read_text() != json.dumps(packages):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text("{}")
        run_command([npm, "install", "--silent", "--no-audit", "--no-fund", *packages], cwd=folder)
        installed.write_text(json.dumps(packages))
    return folder


def run_python(python: str, program: str, *arguments: str, stdin: str = "", cwd: Path | None = None) -> str:
    """Runs a program in an environment, without this project's paths, and returns what it prints."""
    return run_command([python, "-I", "-c", program, *arguments], cwd=cwd, stdin=stdin)


def _describe(package: str) -> str:
    """A package's name and version, or the content of a folder with one."""
    folder = Path(package)
    if not folder.is_absolute():
        return package
    files = sorted(file for file in folder.rglob("*.*") if file.is_file())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def run_command(command: Sequence[str], cwd: Path | None = None, stdin: str = "") -> str:
    """Runs a command without this project's paths, and returns what it prints."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    done = subprocess.run(command, cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)[:2000]}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
