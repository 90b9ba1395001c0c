"""The generator `shapes-honest`: no rule tells which of its pictures are wrong, and enough of them are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from drpo.config import load_config
from drpo.generators.base import OneStepGenerator
from drpo.shapes.pretrain.coupling import modes
from drpo.shapes.prompts import prompts
from drpo.training.build import build_generator
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.geneval.reward import GenevalReward

PICTURES = 200


def load(name: str) -> OneStepGenerator:
    torch.set_num_threads(1)
    return build_generator(load_config("shapes", [f"model.generator={name}", "lora=null"]))


@torch.no_grad()
def find_wrong(generator: OneStepGenerator, task: str) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Which pictures of a task are wrong, (N,); and their noises (N, 4, 8, 8)."""
    noise_NChw = generator.noise(PICTURES, torch.Generator().manual_seed(5))
    records = prompts("validation", task)
    chosen = [records[i] for i in np.random.default_rng(3).integers(len(records), size=PICTURES)]
    conditions = generator.encode_prompts([record.prompt for record in chosen])
    pictures_NHWC = generator.decode(generator.sample(noise_NChw, conditions))
    items = [ScoreItem(picture, one.prompt, one.metadata) for picture, one in zip(pictures_NHWC, chosen, strict=True)]
    scores = GenevalReward(detector="shapes").score(items)
    return np.array([not score.details["strict"] for score in scores]), noise_NChw.numpy()


def area_under_curve(values_N: NDArray[np.float64], wrong_N: NDArray[np.bool_]) -> float:
    """The probability that the value of a wrong picture is above that of a right one; 0.5 says nothing."""
    wrong, right = wrong_N.sum(), (~wrong_N).sum()
    return float((rankdata(values_N)[wrong_N].sum() - wrong * (wrong + 1) / 2) / (wrong * right))


@pytest.mark.parametrize(("name", "least", "most"), [("shapes", 0.75, 1.0), ("shapes-honest", 0.4, 0.6)])
def test_the_rule_tells_the_mistakes_of_shapes_and_not_those_of_honest(name: str, least: float, most: float) -> None:
    generator = load(name)
    for task in ("two_object", "colors", "color_attr"):
        wrong_N, noise_NChw = find_wrong(generator, task)
        assert least < area_under_curve(modes(noise_NChw)[:, 0], wrong_N) < most, task  # mode 0 decides the mistake


def test_some_of_its_pictures_are_right_in_every_task() -> None:
    """With a few right candidates among 24 there is something to rank."""
    generator = load("shapes-honest")
    right = {task: 1 - find_wrong(generator, task)[0].mean() for task in ("single_object", "position", "color_attr")}
    assert 0.5 < right["single_object"] < 0.9
    assert 0.15 < right["position"] < 0.6
    assert 0.15 < right["color_attr"] < 0.6
