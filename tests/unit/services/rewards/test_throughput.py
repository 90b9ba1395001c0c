"""`drpo-rewards bench --reward`, which measures a reward in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import ROOT
from support.images import picture
from support.tiny.clip import write_clip
from typer.testing import CliRunner

from drpo_rewards import rewards
from drpo_rewards.cli import app
from drpo_rewards.rewards.base import ScoreItem, StagedReward

QUICK = ["--seconds", "0.1", "--side", "32", "--batch-size", "1", "--batch-size", "3"]


def test_a_reward_with_a_model(tmp_path: Path) -> None:
    model = ["--model", str(write_clip(tmp_path)), "--device", "cpu", "--dtype", "float32"]
    answer = CliRunner().invoke(app, ["bench", "--reward", "pickscore", *model, *QUICK, "--json"])
    assert answer.exit_code == 0, answer.output
    output = json.loads(answer.stdout)
    assert output["version"].startswith("pickscore-1/")
    assert [row["batch_size"] for row in output["rows"]] == [1, 3]
    for row in output["rows"]:
        assert all(row[key] > 0 for key in ("batches", "images_per_s", "decode_ms", "prepare_ms", "model_ms"))
    assert "images/s" in CliRunner().invoke(app, ["bench", "--reward", "pickscore", *model, *QUICK]).stdout


def test_a_reward_without_stages_and_given_files(tmp_path: Path) -> None:
    image = ROOT / "docs" / "report.png"
    answer = CliRunner().invoke(
        app, ["bench", "--reward", "support.rewards:Darkness", "--image", str(image), *QUICK, "--json"]
    )
    assert answer.exit_code == 0, answer.output
    assert all(row["prepare_ms"] == 0 < row["model_ms"] for row in json.loads(answer.stdout)["rows"])


@pytest.mark.parametrize("reward", ["support.rewards:BrighterOf", "beauty"])
def test_rewards_that_cannot_be_measured(reward: str) -> None:
    assert CliRunner().invoke(app, ["bench", "--reward", reward, *QUICK]).exit_code == 2


def test_prepare_and_score_prepared_give_the_score(tmp_path: Path) -> None:
    reward = rewards.load("clip", model=str(write_clip(tmp_path)), device="cpu")
    assert isinstance(reward, StagedReward)
    items = [ScoreItem(picture(40, 30, seed=seed), prompt) for seed, prompt in enumerate(("a cat", "a dog", "a cat"))]
    assert reward.score_prepared(reward.prepare(items)) == reward.score(items)
