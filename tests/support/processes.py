"""Processes that a test's Ray has started: find them, and wait for their end."""

from __future__ import annotations

import re
import time

import psutil


def children(pattern: str) -> list[psutil.Process]:
    """The processes below this one whose command line matches a pattern."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if re.search(pattern, " ".join(process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for_end(processes: list[psutil.Process]) -> None:
    """Waits until Ray's processes have ended, which they do soon after the driver that started them.

    Its agents may take minutes; they are killed. If nothing reaps orphans, as in a container without an init process,
    the processes stay as zombies, which count as ended.
    """
    deadline = time.monotonic() + 15
    while living := [process for process in processes if process.is_running() and not _is_zombie(process)]:
        if time.monotonic() > deadline:
            assert all("Agent" in process.name() for process in living), f"still running: {living}"
            for process in living:
                process.kill()
            return
        time.sleep(0.1)


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
