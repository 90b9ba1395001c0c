"""`drpo paper` and `drpo judge` from the command line: a small experiment that is killed, goes on, and is judged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.chat_server import chat_server, prefer_bright

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

SMALL = {"training.groups_per_step": 2, "training.candidates": 4, "training.pairs": 2, "training.num_workers": 1}
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
    with subprocess.Popen([sys.executable, "-m", "drpo", *COMMAND], cwd=folder, stdout=subprocess.DEVNULL) as process:
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
    drpo(*COMMAND, folder=folder)
    assert (folder / "small-shapes" / "runs" / "DRaFT-s0" / "metrics.jsonl").read_bytes() == first_run, (
        "finished runs stay"
    )
    page = (folder / "small-shapes" / "page.md").read_text()
    for row in ("| base |", "| DRaFT |", "| DrPO |", "| DrPO | 23.49 |"):
        assert row in page
    results = json.loads((folder / "small-shapes" / "table" / "results.json").read_text())
    assert results["rows"] == ["base", "DRaFT seed 0", "DrPO seed 0"]

    (folder / "small-shapes" / "page.md").unlink()
    drpo(*COMMAND, folder=folder)
    assert (folder / "small-shapes" / "page.md").read_text() == page

    with chat_server(prefer_bright) as server:
        judge = {"type": "judge", "options": {"backend": "endpoint", "model": "seer", "base_url": server.url}}
        geneval = {"type": "geneval", "options": {"detector": "shapes"}, "num_cpus": 0.5}
        rewards = {"judge": {**judge, "num_cpus": 0.1}, "geneval": geneval}
        mixtures = {"default": {"rewards": {"geneval": 1.0}}}
        (folder / "judge.yaml").write_text(yaml.safe_dump({"rewards": rewards, "mixtures": mixtures}))
        words = ("judge", "DrPO seed 0", "base", "--in", "small-shapes/table", "--rewards.service", "judge.yaml")
        assert "8 pairs, at most 8 calls of judge" in drpo(*words, folder=folder)
        asked = len(server.bodies)
        assert asked == 16, "the judge looks in both orders"
        drpo(*words, folder=folder)
        assert len(server.bodies) == asked
        command = [word.replace("small", "judged") for word in COMMAND]
        printed = drpo(*command, folder=folder)
        assert len(server.bodies) == asked + 20
    judged = json.loads((folder / "small-shapes" / "table" / "judge" / "judge.json").read_text())
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
