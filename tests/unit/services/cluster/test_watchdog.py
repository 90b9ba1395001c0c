"""The watchdog of a local Ray, with processes that behave like Ray's. tests/integration has it with a whole service."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from drpo_rewards.cluster.watchdog import GRACE_S

# Like an agent of Ray: it writes into a log of its session, and waits for something that never comes.
OWNER = """
import subprocess, sys, time
from pathlib import Path
from drpo_rewards.cluster.watchdog import Watchdog

folder, pid = Path(sys.argv[1]), int(sys.argv[2])
watchdog = Watchdog(folder, pid)
for session in (f"session_1_{pid}", f"session_2_{pid + 1}"):
    (folder / session / "logs").mkdir(parents=True)
    with (folder / session / "logs" / "agent.log").open("w") as log:
        print(subprocess.Popen(["sleep", "120"], stdout=log, start_new_session=True).pid, flush=True)
if sys.argv[3] == "told":
    watchdog.watch(str(folder / f"session_1_{pid}"))
time.sleep(120)
"""


@pytest.mark.thorough  # it waits for the grace
@pytest.mark.parametrize("told", ["told", "killed while it starts"])
def test_what_is_left_after_a_kill_is_ended_and_nothing_else(tmp_path: Path, told: str) -> None:
    psutil = pytest.importorskip("psutil")
    command = [sys.executable, "-c", OWNER, str(tmp_path), "7", told]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        own, other = (psutil.Process(int(owner.stdout.readline())) for _ in range(2))
        owner.kill()
    own.wait(60)
    assert other.is_running()
    assert other.status() == psutil.STATUS_SLEEPING
    other.kill()


OWNER_THAT_GOES_ON = """
import os, sys, time
from pathlib import Path
from drpo_rewards.cluster.watchdog import Watchdog

folder = Path(sys.argv[1])
watchdog = Watchdog(folder, os.getpid())
logs = folder / f"session_1_{os.getpid()}" / "logs"
logs.mkdir(parents=True)
own_log = (logs / "driver.log").open("w")  # as Ray's, which stays open after ray.shutdown
watchdog.watch(str(logs.parent))
watchdog.let_go()
print(own_log.name, flush=True)
time.sleep(120)
"""


@pytest.mark.thorough  # it waits for the grace
def test_an_owner_that_goes_on_and_a_reader_of_its_log_stay(tmp_path: Path) -> None:
    """A program may go on after `stop_ray`, and somebody may read its logs."""
    command = [sys.executable, "-c", OWNER_THAT_GOES_ON, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        log = owner.stdout.readline().strip()
        with subprocess.Popen(["tail", "-f", log], stdout=subprocess.DEVNULL) as reader:
            time.sleep(GRACE_S + 5)
            assert owner.poll() is None
            assert reader.poll() is None
            reader.kill()
        owner.kill()
