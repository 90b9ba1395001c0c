"""A small library in two versions, and a reward that tells which one it has."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from collections.abc import Sequence
from pathlib import Path

from drpo_rewards.rewards.base import Score, ScoreItem

NAME = "colorlog"  # a library that the tests' environment has in another version


def write_wheel(folder: Path, version: str) -> Path:
    """Writes a wheel of the library that has nothing but a version, and returns it."""
    files = {
        f"{NAME}/__init__.py": f'VERSION_OF_THE_TEST = "{version}"\n',
        f"{NAME}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n",
        f"{NAME}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{NAME}-{version}.dist-info/RECORD"
    rows = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(text)}")
    wheel = folder / f"{NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, record: "\n".join([*rows, f"{record},,"])}.items():
            archive.writestr(name, text)
    return wheel


class LibraryVersion:
    """Tells in its details which version of the library it has, and what it imports under its name."""

    version = "library-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        import colorlog

        own = getattr(colorlog, "VERSION_OF_THE_TEST", None)
        details = {"version": importlib.metadata.version(NAME), "imported": own}
        return [Score(float(item.image.mean()), details) for item in items]
