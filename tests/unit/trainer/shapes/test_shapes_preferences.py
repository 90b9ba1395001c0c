"""The preference set of the world: GenEval's rules find the chosen pictures right and the rejected ones wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from drpo.config import OfflineConfig
from drpo.data.preferences import read_preference_prompts
from drpo.shapes.preferences import write_preferences
from drpo.shapes.prompts import TASKS, prompts
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.geneval.reward import GenevalReward


def test_chosen_pictures_are_right_and_rejected_ones_wrong(tmp_path: Path) -> None:
    table = write_preferences(tmp_path, prompts_per_task=6, pairs=2, seed=1)
    by_prompt = {record.prompt: record for record in prompts("train")}
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [by_prompt[row["prompt"]].task for row in rows] == [task for task in TASKS for _ in range(6)]
    reward = GenevalReward(score="strict")
    right: dict[str, list[float]] = {}
    for side in ("chosen", "rejected"):
        items = [
            ScoreItem(np.asarray(Image.open(tmp_path / name)), row["prompt"], by_prompt[row["prompt"]].metadata)
            for row in rows
            for name in row[side]
        ]
        right[side] = [score.value for score in reward.score_prepared(reward.prepare(items))]
        assert len(items) == 72
    assert np.mean(right["chosen"]) >= 0.97  # the detector itself misses one in a hundred
    assert np.mean(right["rejected"]) <= 0.05
    assert read_preference_prompts(OfflineConfig(path=str(table))) == [row["prompt"] for row in rows]


def test_the_seed_alone_decides_the_pictures(tmp_path: Path) -> None:
    one, same, other = (
        write_preferences(tmp_path / name, prompts_per_task=1, pairs=1, seed=seed)
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    assert one.read_text() == same.read_text() != other.read_text()
    for file in (tmp_path / "one" / "images").iterdir():
        assert file.read_bytes() == (tmp_path / "same" / "images" / file.name).read_bytes()
