"""An objective that ranks nothing needs no ranking service, from the command line to the workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.thorough
@pytest.mark.integration
def test_draft_trains_without_a_ranking_service(tmp_path: Path) -> None:
    """`rewards.service` does not exist, and nobody asks for it."""
    arguments = ["--preset", "shapes-draft", "--name", "draft", "--run.folder", str(tmp_path)]
    arguments += ["--training.steps", "2", "--training.num_workers", "1", "--training.candidates", "4"]
    arguments += ["--training.groups_per_step", "1", "--evaluation.enabled", "false", "--rewards.service", "nowhere"]
    command = [sys.executable, "-m", "drpo", "train", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [json.loads(line) for line in (tmp_path / "draft" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all("reward/clip" in line and line["groups_dropped"] == 0 for line in lines)
    assert (tmp_path / "draft" / "adapter").is_dir()
