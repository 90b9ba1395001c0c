"""A run that is ranked by the embedded CLIP and by GenEval, in the service `shapes-clip`, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.integration


def test_a_run_is_ranked_by_a_mixture_with_the_embedded_clip(tmp_path: Path) -> None:
    arguments = ["--preset", "shapes", "--name", "mixed", "--run.folder", str(tmp_path), "--training.num_workers", "1"]
    arguments += ["--training.steps", "1", "--training.candidates", "4", "--training.pairs", "2"]
    arguments += ["--training.groups_per_step", "1", "--evaluation.enabled", "false"]
    arguments += ["--rewards.service", "shapes-clip", "--rewards.weights", "{clip: 1, geneval: 1}"]
    command = [sys.executable, "-m", "drpo", "train", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (line,) = [json.loads(line) for line in (tmp_path / "mixed" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < line["reward/clip"] < 1
    assert 0 <= line["reward/geneval"] <= 1
    assert line["groups_dropped"] == 0
    settings = yaml.safe_load((tmp_path / "mixed" / "config.yaml").read_text())
    assert settings["rewards"]["service"] == "shapes-clip", "a name stays one, wherever the package lies"
