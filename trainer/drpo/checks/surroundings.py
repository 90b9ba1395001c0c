"""Do the temporary folder, the home folder and the locale serve?"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from drpo.checks.plan import Plan
from drpo_rewards.findings import Finding
from drpo_rewards.serving.operate import surroundings


def check_surroundings(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the surroundings of the process."""
    yield from look_around(starts_ray=plan.starts_ray)


def look_around(*, starts_ray: bool) -> Iterator[Finding]:
    """Yields what is found without a plan.

    Args:
        starts_ray: also look at what a Ray of one's own needs.
    """
    yield _check_temporary_folder()
    if starts_ray:
        yield from surroundings.check_surroundings()
    yield _check_home()
    yield Finding("surroundings", "locale", "ok", f"{sys.getfilesystemencoding()} for names of files; files are UTF-8")


def _check_temporary_folder() -> Finding:
    folder = os.environ.get("TMPDIR") or tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder):  # without `dir` it would fall back on other folders
            return Finding("surroundings", "TMPDIR", "ok", folder)
    except OSError as error:
        found = f"nothing can be written to the temporary folder {folder}: {error.strerror}"
        return Finding("surroundings", "TMPDIR", "wrong", found, "set TMPDIR to a folder that can be written")


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
