"""What a service checks before it trusts a reward: its scores, the metrics that it declares, and its comparisons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from drpo_rewards import rewards
from drpo_rewards.api.contract import Metric
from drpo_rewards.errors import ConfigError, RewardError
from drpo_rewards.rewards.base import Comparison, PairItem, Score, ScoreItem
from drpo_rewards.rewards.checks import check_comparisons, check_scores, describe
from drpo_rewards.rewards.download import Downloader

GREY = np.full((8, 8, 3), 127, np.uint8)
ITEMS = [ScoreItem(GREY, "a"), ScoreItem(GREY, "b")]
METRICS = [Metric(name="strict", unit="share"), Metric(name="graded", unit="share")]


def scores(**second: Any) -> list[Score]:
    return [Score(1.0, {"strict": 1, "graded": 1.0}), Score(0.5, second or None)]


def test_scores_that_fit_are_returned() -> None:
    fitting = scores(strict=np.int64(0), graded=0.5)
    assert check_scores("geneval", fitting, ITEMS, metrics=METRICS) == fitting
    assert check_scores("geneval", scores(), ITEMS) == scores()


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5"])
def test_a_score_that_is_not_finite_is_refused(value: Any) -> None:
    with pytest.raises(RewardError, match=r"'clip' gave .* for b\.png, which is not a finite number") as caught:
        check_scores("clip", [Score(1.0), Score(value)], ITEMS, ["a.png", "b.png"])
    assert (caught.value.reward, caught.value.field) == ("clip", "b.png")


def test_a_wrong_number_of_scores_is_refused() -> None:
    with pytest.raises(RewardError, match="'clip' gave 1 scores for 2 images"):
        check_scores("clip", [Score(1.0)], ITEMS)


@pytest.mark.parametrize("graded", [None, math.nan, "1"])
def test_a_declared_metric_that_is_not_finite_is_refused(graded: Any) -> None:
    with pytest.raises(RewardError, match=r"'geneval' gave .* metric 'graded' of images\[1\]") as caught:
        check_scores("geneval", scores(strict=0, graded=graded), ITEMS, metrics=METRICS)
    assert (caught.value.reward, caught.value.field) == ("geneval", "images[1]")


def test_a_declared_metric_that_is_missing_is_refused() -> None:
    with pytest.raises(RewardError, match=r"'geneval' gave None as its metric 'strict' of images\[1\]"):
        check_scores("geneval", scores(), ITEMS, metrics=METRICS)


@pytest.mark.parametrize("wrong", [Comparison("left"), Comparison("first", confidence=1.5)])  # type: ignore[arg-type]
def test_an_invalid_comparison_is_refused(wrong: Comparison) -> None:
    pairs = [PairItem(GREY, GREY, "a")]
    with pytest.raises(RewardError, match="not a valid comparison"):
        check_comparisons("judge", [wrong], pairs)
    with pytest.raises(RewardError, match="0 comparisons for 1 pairs"):
        check_comparisons("judge", [], pairs)


def test_geneval_declares_its_metrics() -> None:
    metrics = describe("geneval", rewards.load("geneval")).metrics
    assert [(metric.name, metric.unit, metric.higher_is_better) for metric in metrics] == [
        ("strict", "share", True),
        ("graded", "share", True),
    ]
    assert describe("darkness", rewards.load("support.rewards:Darkness")).metrics == []


def test_a_reward_without_headers_only_is_not_built_to_check_its_files(tmp_path: Any) -> None:
    (tmp_path / "weights.txt").write_text("1")
    kind, options = "support.rewards:FailsToLoad", {"model": str(tmp_path)}
    with pytest.raises(ConfigError, match="no argument `headers_only`"):
        rewards.create(kind, options, headers_only=True)
    (row,) = Downloader(report=print).fetch(kind, options)
    assert (row.folder, row.checked, row.error) == (str(tmp_path), False, "")
    assert "headers_only" in row.skipped
