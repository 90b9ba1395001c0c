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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import psutil

from drpo.errors import RunInUseError
from drpo.training.files import storing

LOCK_FILE = ".lock"
CLOCKS_S = 60.0  # by which the system's clock may be put forward while a run trains

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


@dataclass(frozen=True)
class _Holder:
    """Who holds a run: what the lock's file says."""

    token: str
    pid: int
    host: str
    since: float


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
        holder = _Holder(token, os.getpid(), socket.gethostname(), time.time())
        with storing(path):
            file.truncate(0)
            file.write(json.dumps(asdict(holder)))
            file.flush()
        try:
            yield RunLock(token, held)
        finally:
            with suppress(OSError):
                file.truncate(0)


def is_taken_over(run_dir: Path, token: str) -> bool:
    """Whether another start of the run has come after the one with this token."""
    holder = _read_holder(run_dir)
    return holder is not None and holder.token != token


def is_being_trained(run_dir: Path) -> bool:
    """Whether a process seems to train the run: one that holds its lock, and lives if it is on this machine."""
    holder = _read_holder(run_dir)
    if holder is None or holder.host != socket.gethostname():
        return holder is not None
    try:  # a process that started later has the number of one that was killed
        return psutil.Process(holder.pid).create_time() <= holder.since + CLOCKS_S
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.Error:  # a process of another user lives too
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


def _read_holder(run_dir: Path) -> _Holder | None:
    """Who holds the run, as the file says; None if it says nothing whole."""
    try:
        holder = json.loads((run_dir / LOCK_FILE).read_text(encoding="utf-8"))
        return _Holder(str(holder["token"]), int(holder["pid"]), str(holder["host"]), float(holder["since"]))
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):  # just being written
        return None


def _describe(holder: _Holder | None) -> str:
    if holder is None:
        return "another process"
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
    return f"process {holder.pid} on {holder.host}, since {started}"
