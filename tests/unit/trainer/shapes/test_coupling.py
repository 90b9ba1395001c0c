"""The rule that couples noise and scene: captions are wrong as often as stated, and otherwise right."""

from __future__ import annotations

import numpy as np
import pytest

from drpo.shapes.pretrain.coupling import background, caption_is_wrong, coupled_scene, modes
from drpo.shapes.prompts import TASKS, prompts
from drpo.shapes.world import draw_scene
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.geneval.reward import GenevalReward

SHARES = {  # 1 - 0.8 ** facts
    "single_object": 0.2, "two_object": 0.36, "counting": 0.36, "colors": 0.36, "position": 0.488, "color_attr": 0.488,
}  # fmt: skip


def _noise(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4, 8, 8), dtype=np.float32)


def test_the_modes_are_independent_and_of_unit_variance() -> None:
    covariance_MM = np.cov(modes(_noise(20_000, 0)).T)
    np.testing.assert_allclose(covariance_MM, np.eye(16), atol=0.05)


def test_the_modes_are_the_lowest_frequencies() -> None:
    flat = np.zeros((1, 4, 8, 8), dtype=np.float32)
    flat[0, 2] = 1.0
    np.testing.assert_allclose(modes(flat)[0], [0] * 8 + [8] + [0] * 7, atol=1e-9)
    checkered = np.indices((8, 8)).sum(axis=0) % 2 * 2 - 1.0
    assert np.abs(modes(np.broadcast_to(checkered, (1, 4, 8, 8)).astype(np.float32))).max() < 0.5


@pytest.mark.parametrize("task", TASKS)
def test_a_scene_differs_from_its_caption_exactly_where_the_rule_says_so(task: str) -> None:
    records = prompts("train", task)
    noise_NChw = _noise(600, TASKS.index(task))
    chosen = np.random.default_rng(7).integers(len(records), size=len(noise_NChw))
    items, wrong = [], []
    for index, modes_M in zip(chosen, modes(noise_NChw), strict=True):
        record = records[index]
        picture = draw_scene(coupled_scene(record.metadata, modes_M), *background(modes_M))
        items.append(ScoreItem(picture, record.prompt, record.metadata))
        wrong.append(caption_is_wrong(task, modes_M))
    strict = [bool(score.details["strict"]) for score in GenevalReward().score(items) if score.details]
    # the detector itself is right on at least 99 % of the scenes
    assert np.mean(np.array(strict) != np.array(wrong)) >= 0.99
    assert np.mean(wrong) == pytest.approx(SHARES[task], abs=0.07)


def test_a_wrong_scene_does_not_change_the_specification_of_the_caption() -> None:
    record = prompts("train", "colors")[0]
    before = str(record.metadata)
    for modes_M in modes(_noise(50, 3)):
        coupled_scene(record.metadata, modes_M)
    assert str(record.metadata) == before
