"""Do the temporary folder, the home folder and the locale serve?"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from drpo.checks.plan import Plan
from drpo_rewards.findings import Finding

MOST_SOCKET = 107
"""The most bytes in the path of a socket."""
RAYS_PART = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""What Ray adds to the temporary folder; a process id has up to seven digits."""


def check_surroundings(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the surroundings of the process."""
    yield _check_temporary_folder(plan)
    yield _check_home()
    yield Finding("surroundings", "locale", "ok", f"{sys.getfilesystemencoding()} for names of files; files are UTF-8")


def _check_temporary_folder(plan: Plan) -> Finding:
    try:
        # gettempdir remembers its first answer, and falls back on other folders without a word.
        with tempfile.TemporaryFile(dir=os.environ.get("TMPDIR") or None):
            folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    except OSError as error:
        named = os.environ.get("TMPDIR") or "/tmp"
        found = f"nothing can be written to the temporary folder {named}: {error.strerror}"
        return Finding("surroundings", "TMPDIR", "wrong", found, "set TMPDIR to a folder that can be written")
    room = MOST_SOCKET - len(RAYS_PART)
    if plan.starts_ray and len(os.fsencode(folder)) > room:
        found = f"the path of the temporary folder {folder} is too long for the sockets of Ray"
        fix = f"set RAY_TMPDIR to a folder whose path has at most {room} characters, such as /tmp"
        return Finding("surroundings", "TMPDIR", "wrong", found, fix)
    return Finding("surroundings", "TMPDIR", "ok", folder)


def _check_home() -> Finding:
    try:
        home = Path.home()
    except RuntimeError:
        return Finding("surroundings", "HOME", "ok", "there is no home folder; nothing of a run needs one")
    if os.access(home, os.W_OK):
        return Finding("surroundings", "HOME", "ok", str(home))
    return Finding(
        "surroundings", "HOME", "ok", f"{home} cannot be written; only downloads would need it (see HF_HOME)"
    )
