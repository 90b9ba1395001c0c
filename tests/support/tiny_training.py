"""Tiny training runs for tests: a random generator that learns redness, and what of a run can be compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from drpo.training.checkpoint import checkpoints, read_checkpoint
from drpo.training.metrics import read_metrics
from support import ROOT
from support.tiny.sd_turbo import write_tiny_pipeline

TESTS = ROOT / "tests"

STEPS = 8

PROMPTS = {
    "a red circle": "color/attr",
    "a blue square": "[/INST]",
    "two green triangle": "..",
    "a photo of a circle": "\N{LARGE RED CIRCLE} con",
}
"""Each prompt with its task. Any text may be the name of a task."""

Start = Callable[..., subprocess.Popen[str]]


def write_home(folder: Path) -> Path:
    """Writes the generator and the prompts of `settings` into a folder, and returns it."""
    write_tiny_pipeline(folder / "tiny")
    lines = [json.dumps({"prompt": prompt, "task": task}) for prompt, task in PROMPTS.items()]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def settings(home: Path, **training: Any) -> dict[str, Any]:
    """The settings of a run under `home`, without `rewards`."""
    return {
        "preset": "tiny",
        "run": {"folder": str(home / "runs"), "seed": 5},
        "model": {"generator": str(home / "tiny"), "device": "cpu"},
        "lora": {"rank": 4},
        "features": {"name": "raw_latent", "path": None},
        "objective": {"name": "drpo", "radii": [0.2, 0.5, 1.0]},
        "prompts": {"source": "file", "path": str(home / "prompts.jsonl"), "allow_overlap": True},
        "optimizer": {"lr": 0.2, "schedule": "linear"},
        "training": {
            "steps": STEPS,
            "groups_per_step": 2,
            "candidates": 6,
            "pairs": 8,
            "checkpoint_every": 2,
            **training,
        },
        "evaluation": {"enabled": False},
    }


def write_run_config(home: Path, name: str, rewards: dict[str, Any], **training: Any) -> tuple[str, Path]:
    """Writes the config of a run. Returns its path and the run's folder."""
    values = settings(home, **training)
    values["rewards"] = rewards
    values["run"]["name"] = name
    config = home / f"{name}.yaml"
    config.write_text(yaml.safe_dump(values))
    return str(config), home / "runs" / name


def computed(run_dir: Path) -> list[dict]:
    """The metrics that do not depend on time."""
    times = ("time_s", "seconds", "images_per_s")
    return [
        {key: value for key, value in line.items() if key not in times}
        for line in read_metrics(run_dir / "metrics.jsonl")
    ]


def adapter(run_dir: Path) -> dict[str, torch.Tensor]:
    """The weights in a run's newest checkpoint."""
    return read_checkpoint(checkpoints(run_dir / "checkpoints")[-1])["trainer"]["adapter"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@contextmanager
def drivers() -> Iterator[Start]:
    """Yields a function that starts `drpo train` in another process, which ends with the block.

    Its positional arguments are those of the command, its keywords environment variables; `output` is where its output
    goes, by default a pipe. With `own_group` it is the first of a new process group.
    """
    started: list[subprocess.Popen[str]] = []

    def start(
        *arguments: str, output: Any = subprocess.PIPE, own_group: bool = False, **environment: str
    ) -> subprocess.Popen[str]:
        driver = subprocess.Popen(
            [sys.executable, "-m", "drpo", "train", *arguments],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
                "COLUMNS": "300",
                "RAY_ADDRESS": "",
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=own_group,
        )
        started.append(driver)
        return driver

    try:
        yield start
    finally:
        for driver in started:
            driver.kill()
            driver.wait()


def wait_for_step(run_dir: Path, step: int, driver: subprocess.Popen[str]) -> None:
    """Waits until a run has logged a step.

    Raises:
        AssertionError: its driver has ended, or it took too long.
    """
    deadline = time.monotonic() + 300
    while len(read_metrics(run_dir / "metrics.jsonl")) < step:
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.05)
