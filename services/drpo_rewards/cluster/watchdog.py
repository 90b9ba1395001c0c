"""End what is left of a local Ray after the process that started it was killed.

If that process ends without `ray.shutdown`, most processes of Ray end with it. But its agents wait for minutes for an
answer of those that are gone. So each local Ray has a watchdog, a small process without Ray.

Launch: python -m drpo_rewards.cluster.watchdog FOLDER PID, with a pipe from process PID as standard input.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

GRACE_S = 5.0  # after the owner's end, for Ray's own way to end


class Watchdog:
    """Watches this process, which is about to start a Ray.

    Args:
        ray_folder: where Ray keeps its sessions.
        pid: this process.
    """

    def __init__(self, ray_folder: Path, pid: int) -> None:
        # In a session of its own, so that Ctrl-C in a terminal does not end it before its owner.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(ray_folder), str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, session_folder: str) -> None:
        """Tell it which of Ray's sessions it is, once Ray has started."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{session_folder}\n".encode())
        self._process.stdin.flush()

    def let_go(self) -> None:
        """Let it end what is left of Ray, and then itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()


def main(ray_folder: str, pid: str) -> None:
    """Wait for the owner's end, then for that of Ray's processes, and kill those that stay."""
    told = sys.stdin.read().strip()  # returns when the owner lets go or ends, in whatever way
    # A session is named by its time and by the process that started it.
    session = re.compile(re.escape(told) if told else rf"{re.escape(ray_folder)}/session_[^/]*_{pid}")
    deadline = time.monotonic() + GRACE_S
    while living := _find_processes(re.compile(rf"{session.pattern}/logs/"), int(pid)):
        if time.monotonic() > deadline:
            for process in living:
                process.kill()
            return
        time.sleep(0.2)


def _find_processes(log: re.Pattern[str], owner: int) -> list:
    """Find the processes of a session: each of them writes into a log of it, and most hide their arguments.

    The owner writes into one too, and goes on when Ray has ended. Who only reads a log is no process of Ray.
    """
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == owner:
                continue
            if any(log.match(file.path) and getattr(file, "mode", "w") != "r" for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
