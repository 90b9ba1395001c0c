"""One run, whose processes are killed again and again at random moments, ends as the run that was left alone.

DRPO_KILLS        how often a process is killed; 20 by default
DRPO_KILLS_SEED   decides which and when; it is printed, so that a failure can be repeated
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from support.tiny_training import Start, adapter, computed, drivers, same, wait_for_step, write_home, write_run_config

pytestmark = pytest.mark.kills

KILLS = int(os.environ.get("DRPO_KILLS", "20"))
SEED = int(os.environ.get("DRPO_KILLS_SEED", random.SystemRandom().randrange(10**6)))
STEPS = 2 * KILLS + 2

VICTIMS = {
    "worker": r"ray::.*TrainWorker",
    "gateway": r"ray::ServeReplica.*gateway",
    "reward": r"ray::ServeReplica.*redness",
    "driver": None,
}
"""The processes that are killed, by a pattern of their command lines."""


@pytest.fixture
def start() -> Iterator[Start]:
    with drivers() as start:
        yield start


@pytest.mark.timeout(3600)
def test_kills_at_random_moments_change_nothing(tmp_path: Path, start: Start) -> None:
    home = write_home(tmp_path)
    reward = {"type": "support.rewards:Redness", "options": {"seconds_per_group": 0.2}, "num_cpus": 0.1}
    (home / "service.yaml").write_text(yaml.safe_dump({"rewards": {"redness": reward}}))
    rewards = {"service": str(home / "service.yaml"), "retries": 50, "timeout_s": 200}
    config, expected = write_run_config(home, "left-alone", rewards, steps=STEPS)
    with (home / "left-alone.log").open("w") as output:
        driver = start("--preset", config, output=output)
    assert driver.wait(600) == 0, (home / "left-alone.log").read_text()

    config, run_dir = write_run_config(home, "killed", rewards, steps=STEPS, max_failures=-1)
    driver = kill_at_random_moments(config, run_dir, start)
    assert driver.wait(600) == 0, (home / "killed.log").read_text()
    assert computed(run_dir) == computed(expected)
    assert same(adapter(run_dir), adapter(expected))


def kill_at_random_moments(config: str, run_dir: Path, start: Start) -> subprocess.Popen[str]:
    """Starts a run, kills one of its processes `KILLS` times, and resumes it if that was its driver.

    Returns:
        The driver that the run has at the end.
    """
    moments = random.Random(SEED)
    victims = [list(VICTIMS)[number % len(VICTIMS)] for number in range(KILLS)]
    moments.shuffle(victims)
    print(f"\nDRPO_KILLS={KILLS} DRPO_KILLS_SEED={SEED}: {' '.join(victims)}", flush=True)
    log = run_dir.parent.parent / f"{run_dir.name}.log"
    with log.open("w") as output:
        driver = start("--preset", config, output=output)
        began = time.monotonic()
        steps = sorted(moments.sample(range(1, STEPS), KILLS))
        for number, (step, victim) in enumerate(zip(steps, victims, strict=True), start=1):
            wait_for_step(run_dir, step, driver)
            time.sleep(moments.uniform(0, 0.5))  # somewhere within a step
            pattern = VICTIMS[victim]
            if pattern is None:
                driver.kill()
                driver.wait()
                driver = start("--resume", str(run_dir), output=output)  # while the old workers may still live
            else:
                find_descendant(driver, pattern).kill()
            print(f"{time.monotonic() - began:5.0f} s  kill {number}: {victim} after step {step}", flush=True)
    return driver


def find_descendant(driver: subprocess.Popen[str], pattern: str) -> psutil.Process:
    """A process below a driver, by its command line. Waits for it, because it may just be starting again."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for process in psutil.Process(driver.pid).children(recursive=True):
            try:
                if re.search(pattern, " ".join(process.cmdline())):
                    return process
            except psutil.Error:
                continue
        time.sleep(0.1)
    raise AssertionError(f"no process below {driver.pid} matches {pattern}")
