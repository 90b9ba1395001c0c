"""Ray on a machine so busy that its node's agent takes longer to start than Ray allows, or with too few open files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

# Python imports this in every process. Ray gives the agent 15 s.
SLOW_AGENT = """
import pathlib, time
words = pathlib.Path("/proc/self/cmdline").read_text().split("\\0")
first = pathlib.Path({marker!r})
if any(word.endswith("dashboard/agent.py") for word in words) and ({always} or not first.exists()):
    first.touch()
    time.sleep(60)
"""
START = """
from drpo_rewards.cluster.local_ray import start_local_ray, stop_ray
from drpo_rewards.errors import ServiceUnavailableError
try:
    start_local_ray(timeout_s={timeout_s})
    print("started")
except ServiceUnavailableError as error:
    print(error)
stop_ray()
"""


def start(folder: Path, *, always: bool, timeout_s: float) -> str:
    """What a start of Ray prints, with an agent that is slow at its first or at every start."""
    (folder / "sitecustomize.py").write_text(SLOW_AGENT.format(marker=str(folder / "marker"), always=always))
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", START.format(timeout_s=timeout_s)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert (folder / "marker").exists()
    return done.stdout.strip()


def test_a_node_that_dies_at_its_start_is_started_again(tmp_path: Path) -> None:
    assert start(tmp_path, always=False, timeout_s=200) == "started"


def test_a_node_that_always_dies_is_one_error(tmp_path: Path) -> None:
    printed = start(tmp_path, always=True, timeout_s=5)
    assert printed.startswith("Ray could not start: its node died; raylet.err in its logs says why; its logs: ") or (
        "it was not up after 5 s" in printed
    )


def test_a_head_that_dies_is_one_error_at_once() -> None:
    """Ray waits for it in one call, for as long as the head may take, and takes no signal in that time."""
    done = subprocess.run(
        [sys.executable, "-c", START.format(timeout_s=200)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)),
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.stdout.startswith("Ray could not start: its head died; gcs_server.err in its logs says why; its logs: ")
