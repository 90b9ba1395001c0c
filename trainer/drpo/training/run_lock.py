"""One process at a time may train a run.

The driver holds a lock on a file in the run's folder for as long as it lives. The system releases the lock when the
process ends, however it ends, so the lock of a crashed process is no obstacle. On NFS the lock also holds between
machines (unless mounted with `nolock`); a file system without locks gives `RunLock.held == False`.

A killed driver may leave workers that live on for some seconds. They find the token of the next driver in the file, and
end without writing anything.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from drpo.errors import RunInUseError
from drpo.training.files import storing

LOCK_FILE = ".lock"

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@dataclass(frozen=True)
class RunLock:
    """What the holder of a run knows about its lock.

    Attributes:
        token: identifies this start of the run; see `is_taken_over`.
        held: False if the file system has no locks, so that nothing keeps other processes away.
    """

    token: str
    held: bool


@contextmanager
def lock_run(run_dir: Path) -> Iterator[RunLock]:
    """Keeps other processes from training this run within the block.

    Raises:
        RunInUseError: another process trains it.
        StorageError: the folder cannot be written.
    """
    path = run_dir / LOCK_FILE
    with storing(path):
        file = path.open("a+", encoding="utf-8")
    with file:
        held = _try_to_lock(file, run_dir)
        token = uuid.uuid4().hex
        holder = {"token": token, "pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        with storing(path):
            file.truncate(0)
            file.write(json.dumps(holder))
            file.flush()
        try:
            yield RunLock(token, held)
        finally:
            with suppress(OSError):
                file.truncate(0)


def is_taken_over(run_dir: Path, token: str) -> bool:
    """Whether another start of the run has come after the one with this token."""
    holder = _read_holder(run_dir)
    return bool(holder) and holder.get("token") != token


def is_being_trained(run_dir: Path) -> bool:
    """Whether a process seems to train the run: one that holds its lock, and lives if it is on this machine."""
    holder = _read_holder(run_dir)
    if not holder or holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(int(holder["pid"]), 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (OSError, ValueError, LookupError):  # a process of another user lives too
        return True
    return True


def _try_to_lock(file: TextIO, run_dir: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunInUseError(
            f"{run_dir} is being trained by {_describe(_read_holder(run_dir))}; wait until it ends, or stop it first"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _read_holder(run_dir: Path) -> dict[str, Any]:
    try:
        holder = json.loads((run_dir / LOCK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # just being written
        return {}
    return holder if isinstance(holder, dict) else {}


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
    return f"process {holder['pid']} on {holder['host']}, since {started}"
