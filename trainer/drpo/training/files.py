"""Write the files of a run whole: whoever reads one, also after a kill or on a full disk, finds the old or the new one.

Everything is UTF-8, whatever the locale.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drpo.errors import DrpoError, StorageError


def write_text(path: Path, text: str) -> None:
    """Replaces a file by a text.

    A lone surrogate, which some services send in their texts and UTF-8 cannot hold, is written as a backslash escape.

    Raises:
        StorageError: the file could not be written. The old one is unchanged.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Replaces a file by `data`, on the disk and not only in the system's memory.

    A link stays, and what it leads to is replaced. A device, a pipe or an open file (/dev/stdout) is written to.

    Raises:
        StorageError: the file could not be written. The old one is unchanged.
    """
    with storing(path):
        if _is_open_already(path) or (path.exists() and not path.is_file() and not path.is_dir()):
            with path.open("ab") as device:
                device.write(data)
            return
        path = Path(os.path.realpath(path))
        partial = path.with_name(f".partial-{path.name}")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder for the block to fill, and puts it in the place of `path` after the block.

    Raises:
        StorageError: the folder could not be written. The old one is unchanged.
    """
    partial, old = path.with_name(f".partial-{path.name}"), path.with_name(f".old-{path.name}")
    with storing(path):
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise StorageError(f"cannot write {path}: it is there already, and is no folder")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            for file in [*(each for each in partial.rglob("*") if each.is_file()), partial]:
                _flush_to_disk(file)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # a full disk has room again for what comes next
            raise
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        _flush_to_disk(path.parent)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns every error of writing within the block into one that says what could not be written, and why.

    Raises:
        StorageError: writing failed.
    """
    from safetensors import SafetensorError

    try:
        yield
    except DrpoError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"cannot write {path}: {reason}") from error


def _is_open_already(path: Path) -> bool:
    """Whether a path names an open file of a process, as /dev/stdout does. Others hold it, so it cannot be replaced."""
    for _ in range(40):  # more links than that are a loop
        if path.parent == Path("/dev/fd") or (path.parent.name == "fd" and path.is_relative_to("/proc")):
            return True
        if not path.is_symlink():
            return False
        path = Path(os.path.normpath(path.parent / path.readlink()))
    return False


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
