"""Signals at the moments of a run at which nothing is trained yet, or everything must end at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from support.processes import wait_for_end
from support.tiny_training import TESTS, Start, drivers, wait_for_step, write_home, write_run_config

from drpo.report import REPORT_FILE
from drpo.training.checkpoint import find_newest_checkpoint, step_of
from drpo.training.run_folder import ADAPTER, COMPARISON_FILE, SUMMARY_FILE
from drpo.training.run_lock import lock_run

pytestmark = [pytest.mark.integration, pytest.mark.thorough, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_home(tmp_path_factory.mktemp("endings"))
    reward = {"type": "support.rewards:Redness", "options": {"seconds_per_group": 1.0}, "num_cpus": 0.1}
    (folder / "service.yaml").write_text(yaml.safe_dump({"rewards": {"redness": reward}}))
    return folder


@pytest.fixture
def start_drpo() -> Iterator[Start]:
    with drivers() as start:
        yield start


def wait_for_ray(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes below a driver, as soon as the first one of Ray is among them."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        family = psutil.Process(driver.pid).children(recursive=True)
        if any("gcs_server" in one.name() for one in family):
            return family
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("Ray did not start")


@pytest.mark.parametrize(("number", "line"), [(signal.SIGTERM, "ended by SIGTERM"), (signal.SIGINT, "ended by Ctrl-C")])
def test_a_signal_while_ray_starts(number: signal.Signals, line: str, home: Path, start_drpo: Start) -> None:
    config, run_dir = write_run_config(home, number.name, {"service": str(home / "service.yaml")})
    driver = start_drpo("--preset", config)
    family = wait_for_ray(driver)
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 128 + number, output
    assert output.splitlines()[-2:] == [f"  drpo train --resume {run_dir}", line]
    assert "Traceback" not in output
    wait_for_end(family)
    with lock_run(run_dir) as lock:
        assert lock.held


def test_signals_in_training(home: Path, start_drpo: Start) -> None:
    """SIGTERM ends it after the step, with a checkpoint; a second Ctrl-C at once. Each time it goes on."""
    config, run_dir = write_run_config(home, "trained", {"service": str(home / "service.yaml")}, steps=100)

    def end(driver: subprocess.Popen[str], step: int, *numbers: signal.Signals) -> list[str]:
        wait_for_step(run_dir, step, driver)
        family = psutil.Process(driver.pid).children(recursive=True)
        for number in numbers:
            driver.send_signal(number)
            time.sleep(0.3)  # two signals at once are one
        output, _ = driver.communicate(timeout=200)
        assert driver.returncode == 128 + numbers[-1], output
        assert "Traceback" not in output
        assert "received at" not in output  # as Ray's C++ code writes
        wait_for_end(family)
        return output.splitlines()

    lines = end(start_drpo("--preset", config), 2, signal.SIGTERM)
    assert lines[-2].startswith("ended by SIGTERM at step ")
    assert lines[-2].endswith(", with a checkpoint. To continue, run")
    reached = step_of(find_newest_checkpoint(run_dir / "checkpoints").path or run_dir)
    lines = end(start_drpo("--resume", str(run_dir)), reached + 1, signal.SIGINT, signal.SIGINT)
    assert lines[-2:] == [f"  drpo train --resume {run_dir}", "ended by Ctrl-C"]
    driver = start_drpo("--resume", str(run_dir), "--training.steps", str(reached + 3))
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    assert f"{reached + 3} steps in " in output


def test_a_signal_to_the_whole_group(home: Path, start_drpo: Start) -> None:
    """As `timeout` sends it: to the process, and at once to its group. Ray goes on until the checkpoint is written."""
    config, run_dir = write_run_config(home, "grouped", {"service": str(home / "service.yaml")}, steps=100)
    driver = start_drpo("--preset", config, own_group=True)
    wait_for_step(run_dir, 1, driver)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGTERM)
    os.killpg(driver.pid, signal.SIGTERM)
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 128 + signal.SIGTERM, output
    *_, said, command = output.splitlines()
    assert said.startswith("ended by SIGTERM at step ")
    assert said.endswith(", with a checkpoint. To continue, run")
    assert command == f"  drpo train --resume {run_dir}"
    assert "Traceback" not in output
    assert find_newest_checkpoint(run_dir / "checkpoints").path is not None
    wait_for_end(family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_while_it_evaluates(number: signal.Signals, home: Path, start_drpo: Start) -> None:
    """What is trained stays, the report is made without the scores, and one command makes the rest."""
    config, run_dir = write_run_config(
        home, f"evaluated-{number.name}", {"service": str(home / "service.yaml")}, steps=1
    )
    evaluation = ["--evaluation.enabled", "true", "--evaluation.images_per_prompt", "8"]  # 64 pictures take 8 s or more
    driver = start_drpo("--preset", config, *evaluation)
    wait_for_step(run_dir, 1, driver)
    while not (run_dir / SUMMARY_FILE).exists():  # written before the evaluation
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.05)
    time.sleep(1)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 128 + number, output
    assert "Traceback" not in output
    assert "error: evaluation failed: " in output
    assert output.splitlines()[-1].endswith(f"drpo eval --adapter {run_dir}")
    wait_for_end(family)
    assert (run_dir / ADAPTER).is_dir()
    assert not (run_dir / COMPARISON_FILE).exists()
    assert (run_dir / REPORT_FILE).exists()

    again = [sys.executable, "-m", "drpo", "eval", "--adapter", str(run_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    made = subprocess.run(again, env=environment, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    assert "redness" in (run_dir / COMPARISON_FILE).read_text()
