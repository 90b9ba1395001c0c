"""`drpo paper` and `drpo judge` from the command line: a small experiment that is killed, goes on, and is judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.chat_server import chat_server, prefer_bright

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

SMALL = {"training.groups_per_step": 2, "training.candidates": 4, "training.pairs": 2}
EXPERIMENT = {
    "title": "A small table",
    "paper": {"columns": ["PS"], "rows": {"DrPO": [23.49]}},
    "worlds": {
        "shapes": {
            "needs": "two CPU cores",
            "preset": "shapes",
            "runs": {
                "DRaFT": {"preset": "shapes-draft", "settings": SMALL},
                "DrPO": {"preset": "shapes", "settings": SMALL},
            },
            "prompts": ["few=shapes,tasks=colors+counting"],
            "images": 2,
            "steps": 3,
            "step_seconds": 1,
        }
    },
}
JUDGED = {
    "title": "The same rows, judged",
    "kind": "judged",
    "paper": {},
    "worlds": {
        "shapes": {
            "shares": "small.yaml",
            "settings": {"rewards.service": "judge.yaml"},
            "judging": {"judge": "judge", "first": "DrPO", "pairs": 5},
        }
    },
}
COMMAND = ["paper", "small.yaml", "--seeds", "1", "--out", "small-shapes", "--evaluation.prompts_per_task", "2"]
ALL_CORES = ["--training.num_workers", str(os.cpu_count())]  # so that there is no room for two runs at once


def drpo(*arguments: str, folder: Path) -> str:
    """What `drpo` prints. It must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "drpo", *arguments], cwd=folder, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment whose first start was killed in its second run."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "small.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    (folder / "judged.yaml").write_text(yaml.safe_dump(JUDGED))
    second = folder / "small-shapes" / "runs" / "DrPO-s0" / "config.yaml"
    with subprocess.Popen(
        [sys.executable, "-m", "drpo", *COMMAND, *ALL_CORES], cwd=folder, stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 240
        while not second.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    return folder


@pytest.mark.timeout(900)
def test_a_killed_experiment_goes_on_and_is_judged(folder: Path) -> None:
    metrics = folder / "small-shapes" / "runs" / "DRaFT-s0" / "metrics.jsonl"
    first_run = metrics.read_bytes()
    assert not (folder / "small-shapes" / "page.md").exists()
    drpo(*COMMAND, *ALL_CORES, folder=folder)
    assert (folder / "small-shapes" / "runs" / "DRaFT-s0" / "metrics.jsonl").read_bytes() == first_run, (
        "finished runs stay"
    )
    page = (folder / "small-shapes" / "page.md").read_text()
    for row in ("| base |", "| DRaFT |", "| DrPO |", "| DrPO | 23.49 |"):
        assert row in page
    results = json.loads((folder / "small-shapes" / "table" / "results.json").read_text())
    assert results["rows"] == ["base", "DRaFT seed 0", "DrPO seed 0"]

    (folder / "small-shapes" / "page.md").unlink()
    drpo(*COMMAND, *ALL_CORES, folder=folder)
    assert (folder / "small-shapes" / "page.md").read_text() == page

    with chat_server(prefer_bright) as server:
        judge = {"type": "judge", "options": {"backend": "endpoint", "model": "seer", "base_url": server.url}}
        geneval = {"type": "geneval", "options": {"detector": "shapes"}, "num_cpus": 0.5}
        rewards = {"judge": {**judge, "num_cpus": 0.1}, "geneval": geneval}
        mixtures = {"default": {"rewards": {"geneval": 1.0}}}
        (folder / "judge.yaml").write_text(yaml.safe_dump({"rewards": rewards, "mixtures": mixtures}))
        words = ("judge", "DrPO seed 0", "base", "--in", "small-shapes/table", "--rewards.service", "judge.yaml")
        for more in (["--dry-run"], []):
            assert "8 pairs, at most 8 calls of judge" in drpo(*words, *more, folder=folder)
        asked = len(server.bodies)
        assert asked == 16, "the judge looks in both orders"
        assert "8 of the pairs are judged already: at most 0 calls are left" in drpo(*words, folder=folder)
        assert len(server.bodies) == asked
        command = [word.replace("small", "judged") for word in [*COMMAND, *ALL_CORES]]
        printed = drpo(*command, folder=folder)
        assert len(server.bodies) == asked + 20
    judged = json.loads((folder / "small-shapes" / "table" / "judge" / "judge.json").read_text())
    assert judged["model"] == "DrPO seed 0"
    (outcome,) = judged["against"].values()
    assert outcome["pairs"] == 8
    assert sum(outcome[part][0] for part in ("win", "loss", "tie")) == pytest.approx(1)

    assert "the runs are those of small" in printed
    assert "judging: at most 10 pairs, each a call of judge" in printed
    assert not (folder / "judged-shapes" / "runs").exists()
    page = (folder / "judged-shapes" / "page.md").read_text()
    assert "The judge is judge." in page
    for row in ("| base |", "| DRaFT |"):
        assert row in page.partition("## What the judge says")[2]
    (folder / "judged-shapes" / "page.md").unlink()
    drpo(*command, folder=folder)
    assert (folder / "judged-shapes" / "page.md").read_text() == page


@pytest.mark.timeout(600)
def test_runs_for_which_there_is_room_are_trained_at_once_and_stopped_together(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    runs = [tmp_path / "small-shapes" / "runs" / name for name in ("DRaFT-s0", "DrPO-s0")]
    command = [sys.executable, "-m", "drpo", *COMMAND, "--training.num_workers", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not all((run / "config.yaml").exists() for run in runs):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=120)[0]
        assert process.returncode == 130, printed
    assert "2 of 2 runs are left, 2 at once" in printed
    assert "stopped, with checkpoints; the same command goes on there" in printed
    printed = drpo(*command[3:], folder=tmp_path)
    for run in runs:
        assert f"finished: {run.name}, 3 steps" in printed
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert steps == [1, 2, 3]
    assert "| DrPO |" in (tmp_path / "small-shapes" / "page.md").read_text()
