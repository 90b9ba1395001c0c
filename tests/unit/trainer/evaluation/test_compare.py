"""Differences and their intervals, compared with cases that are small enough to compute by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.data.prompts.record import PromptRecord
from drpo.errors import EvaluationError
from drpo.evaluation import (
    EvaluationResult,
    PlannedImage,
    ScoredImage,
    ShownMetric,
    bootstrap_interval,
    compare,
)

STRICT = ShownMetric("geneval", "strict", percentage=True)


def result(scores: dict[tuple[str, str], list[float]]) -> EvaluationResult:
    """A result with the given scores of each (task, prompt); seeds count up."""
    images = [
        ScoredImage(PlannedImage(PromptRecord(prompt, None, task), number, seed=1000 * index + number), score)
        for index, ((task, prompt), values) in enumerate(scores.items())
        for number, score in enumerate(values)
    ]
    return EvaluationResult(STRICT, images)


BASE = result({("counting", "two"): [0, 100], ("counting", "three"): [0, 0], ("colors", "red"): [100, 0]})
TUNED = result({("counting", "two"): [100, 100], ("counting", "three"): [0, 0], ("colors", "red"): [100, 100]})


def test_means_and_differences_by_hand() -> None:
    comparison = compare(BASE, TUNED)
    counting, colors, mean = comparison["tasks"]["counting"], comparison["tasks"]["colors"], comparison["mean"]
    assert (counting["base"], counting["tuned"], counting["difference"]) == (25, 50, 25)
    assert (counting["images"], counting["prompts"]) == (4, 2)
    assert (colors["base"], colors["tuned"], colors["difference"]) == (50, 100, 50)
    # the mean over tasks counts each task the same, though counting has twice the images
    assert (mean["base"], mean["tuned"], mean["difference"]) == (37.5, 75, 37.5)
    assert (mean["images"], mean["prompts"]) == (6, 3)
    assert (comparison["metric"], comparison["percentage"], comparison["binary"]) == ("geneval/strict", True, True)


def test_parts_are_compared_over_the_images_that_have_them() -> None:
    """Each part is a share of its own; a part that only one prompt has counts that prompt alone."""
    both = [[{"count": 40.0}, {"count": 20.0, "verb": 90.0}], [{"count": 60.0}, {"count": 20.0, "verb": 50.0}]]
    sides = [
        EvaluationResult(
            STRICT,
            [
                ScoredImage(PlannedImage(PromptRecord(f"prompt {index}"), 0, seed=index), 0.0, parts=parts)
                for index, parts in enumerate(side)
            ],
        )
        for side in both
    ]
    parts = compare(*sides)["parts"]
    assert list(parts) == ["count", "verb"]
    assert (parts["count"]["base"], parts["count"]["tuned"], parts["count"]["images"]) == (30, 40, 2)
    assert (parts["verb"]["base"], parts["verb"]["tuned"], parts["verb"]["images"]) == (90, 50, 1)


def test_interval_of_two_prompts_by_hand() -> None:
    """Differences are 50 and 0, so a resample's mean is 0, 25 or 50, with chances 1/4, 1/2 and 1/4."""
    comparison = compare(BASE, TUNED)
    assert comparison["tasks"]["counting"]["ci95"] == [0, 50]
    assert comparison["tasks"]["colors"]["ci95"] is None  # of a single prompt
    assert comparison["mean"]["ci95"] is None


def test_interval_matches_the_enumeration_of_every_resample() -> None:
    differences = np.array([0.0, 1.0, 2.0, 5.0, 11.0])
    every_mean = [np.mean(drawn) for drawn in itertools.product(differences, repeat=5)]
    expected = np.quantile(every_mean, [0.05, 0.95])
    interval = bootstrap_interval([differences], resamples=200_000, level=0.9)
    assert interval == pytest.approx(expected, abs=0.21)  # one step of the discrete distribution


def test_interval_resamples_each_task_within_itself() -> None:
    """If all values within each task are equal, there is no uncertainty. Pooled over tasks there would be a lot."""
    assert bootstrap_interval([[3.0] * 8, [-1.0] * 4]) == (1.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(0, 99))
def test_interval_is_ordered_repeatable_and_within_the_data(strata: list[list[float]], seed: int) -> None:
    low, high = bootstrap_interval(strata, resamples=200, seed=seed)
    assert (low, high) == bootstrap_interval(strata, resamples=200, seed=seed)
    assert np.mean([min(values) for values in strata]) - 1e-9 <= low <= high
    assert high <= np.mean([max(values) for values in strata]) + 1e-9


def test_interval_covers_the_true_mean_in_about_95_percent_of_the_cases() -> None:
    random = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval([random.normal(2.0, 3.0, 60)], resamples=300, seed=trial)
        hits += low <= 2.0 <= high
    assert 0.91 <= hits / 200 <= 0.98


def test_other_seeds_or_metrics_are_refused() -> None:
    with pytest.raises(EvaluationError, match="different prompts or seeds"):
        compare(BASE, result({("counting", "two"): [0, 100]}))
    with pytest.raises(EvaluationError, match="same metric"):
        compare(BASE, EvaluationResult(ShownMetric("pickscore"), TUNED.images))
    with pytest.raises(EvaluationError, match="at least one number"):
        bootstrap_interval([[]])
