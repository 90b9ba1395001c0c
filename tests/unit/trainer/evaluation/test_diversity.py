"""Diversity: by hand on small features, and on real pictures of the embedded generator."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.local_ranker import LocalClient

from drpo.data.prompts.record import PromptRecord
from drpo.errors import EvaluationError
from drpo.evaluation import PictureFeatures, evaluate, measure_diversity, plan_images
from drpo.generators import load_generator
from drpo.method.features import load_feature_map
from drpo.shapes.embedded import feature_map_source, generator_source
from drpo_rewards.rewards.geneval.reward import GenevalReward


@pytest.fixture(scope="module")
def features() -> PictureFeatures:
    generator = load_generator(generator_source("shapes"))
    feature_map = load_feature_map("latent_mae", feature_map_source("shapes"), generator=generator)
    return PictureFeatures(feature_map, generator, batch_size=3)


def test_the_distance_is_that_computed_by_hand() -> None:
    one = torch.tensor([[[3.0, 4.0]], [[3.0, 0.0]], [[3.0, 4.0]]])  # lengths 5, 3, 5; differences 4, 0, 4
    other = torch.tensor([[[1.0], [0.0]], [[-1.0], [0.0]], [[1.0], [0.0]]])  # opposite, and two zeros
    by_key = {"one": (1.0 + 0 + 1.0) / 3, "other": (2 + 0 + 2) / 3 / 2}
    assert measure_diversity({"one": one}) == pytest.approx(by_key["one"])
    assert measure_diversity({"one": one, "other": other}) == pytest.approx(sum(by_key.values()) / 2)
    assert measure_diversity({"one": 1000 * one}) == pytest.approx(by_key["one"]), "no unit counts"
    assert measure_diversity({"one": one[:1].expand(3, 1, 2)}) == 0
    with pytest.raises(EvaluationError, match="at least two"):
        measure_diversity({"one": one[:1]})


def test_features_of_pictures_do_not_depend_on_the_batch_or_the_size(features: PictureFeatures) -> None:
    pictures_NHWC = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    together, alone = features.of(pictures_NHWC), features.of(pictures_NHWC[4:])
    for key, tokens_NTD in together.items():
        torch.testing.assert_close(tokens_NTD[4:], alone[key], rtol=1e-3, atol=1e-4)
    doubled = features.of(pictures_NHWC.repeat(2, axis=1).repeat(2, axis=2))
    assert {key: value.shape for key, value in doubled.items()} == {key: one.shape for key, one in together.items()}


def test_an_evaluation_measures_each_prompt(features: PictureFeatures) -> None:
    generator = load_generator(generator_source("shapes"))
    meta = {"include": [{"class": "ring", "count": 1}]}
    records = [PromptRecord("a red ring", meta, "colors"), PromptRecord("a ring", meta, "single")]
    planned = plan_images(records, images_per_prompt=3, examples_per_task=1)
    result = evaluate(generator, LocalClient(GenevalReward(score="graded")), planned, features=features)
    assert set(result.diversity) == {("colors", "a red ring"), ("single", "a ring")}
    assert all(0.01 < value < 1 for value in result.diversity.values())
    means = result.number_means()
    assert means["diversity"] == pytest.approx(np.mean(list(result.diversity.values())))
    assert means["geneval/strict"] == pytest.approx(result.mean() / 100)
    assert not math.isnan(means["geneval"])
    single = evaluate(
        generator, LocalClient(GenevalReward()), plan_images(records, images_per_prompt=1), features=features
    )
    assert single.diversity == {}
    assert "diversity" not in single.number_means()
