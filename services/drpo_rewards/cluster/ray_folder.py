"""The folder in which a local Ray keeps its sockets, its logs and what does not fit into memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from drpo_rewards.errors import ConfigError

OWN = "RAY_TMPDIR"  # a folder that the user has chosen for Ray
SOCKET_BYTES = 107  # the longest path of a socket on Linux
IN_FOLDER = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LEAST_FREE_MB = 100  # for logs; what does not fit into shared memory also goes here


def find_ray_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Find a folder that Ray can use: $RAY_TMPDIR if it is set, otherwise the first good one of $TMPDIR and /tmp.

    That of $RAY_TMPDIR may be missing, because scripts name it by their job; Ray makes it when it starts.

    Raises:
        ConfigError: there is none. The message says what is wrong with each.
    """
    chosen = environment.get(OWN)
    candidates = [chosen] if chosen else [environment.get("TMPDIR") or "/tmp", "/tmp", "/var/tmp"]
    problems = {}
    for candidate in dict.fromkeys(candidates):
        problem = _find_problem(Path(candidate), may_be_missing=candidate == chosen)
        if problem is None:
            return Path(candidate).absolute()
        problems[candidate] = problem
    found = "; ".join(f"{folder} {problem}" for folder, problem in problems.items())
    raise ConfigError(f"Ray needs a folder for its sockets and logs: {found}; name a folder in ${OWN}")


def _find_problem(folder: Path, *, may_be_missing: bool) -> str | None:
    there = folder.absolute()
    while may_be_missing and folder.is_absolute() and not os.path.lexists(there):  # not one named ~ or $SCRATCH
        there = there.parent
    if not there.is_dir():
        return "is not a folder"
    if not str(folder.absolute()).isascii():
        return "has letters beyond ASCII, which Ray cannot use"
    longest = SOCKET_BYTES - len(IN_FOLDER)
    if len(os.fsencode(folder.absolute())) > longest:
        return f"is too long: sockets in it need a path of at most {longest} bytes"
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            pass
        free_mb = shutil.disk_usage(there).free / 1e6
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    if free_mb < LEAST_FREE_MB:
        return f"has only {free_mb:.0f} MB free, and needs {LEAST_FREE_MB}"
    return None
