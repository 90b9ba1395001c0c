"""Read files that a user names, which may be devices without an end."""

from __future__ import annotations

from pathlib import Path


def read_at_most(path: Path, most: int) -> bytes:
    """Read a file, or what comes through a pipe.

    Args:
        path: the file.
        most: the most bytes that it may have.

    Raises:
        ValueError: there are more than `most` bytes.
        OSError: it cannot be read.
    """
    data = bytearray()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):  # a larger piece would take its memory before it is there
            data += piece
            if len(data) > most:
                raise ValueError(f"it has more than {most / 1e6:g} MB")
    return bytes(data)


def why_unreadable(error: Exception) -> str:
    """Return why JSON or YAML could not be read or written, without advice to programmers on long numbers."""
    return str(error).partition("; use sys.")[0]
