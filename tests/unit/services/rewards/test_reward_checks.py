"""What a service checks before it trusts a reward: its scores, the metrics that it declares, and its comparisons."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from drpo_rewards import rewards
from drpo_rewards.api.contract import Metric
from drpo_rewards.errors import ConfigError, RewardError
from drpo_rewards.rewards.base import Comparison, PairItem, Score, ScoreItem
from drpo_rewards.rewards.checks import check_comparisons, check_details, check_scores, copy_items, describe
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


@pytest.mark.parametrize(
    "value", [True, np.True_, np.float16(1), np.int8(1), torch.ones(1, 1), np.ones(1), Fraction(1), Decimal(1)]
)
def test_any_kind_of_number_becomes_a_plain_one(value: Any) -> None:
    for given in ([value, Score(value)], (one for one in (value, value))):
        found = check_scores("clip", given, ITEMS)
        assert found == [Score(1.0), Score(1.0)]
        assert [type(score.value) for score in found] == [float, float]


@pytest.mark.parametrize(
    "value",
    [
        1j,
        np.complex64(1),
        np.ones(2),
        torch.ones(2),
        [1.0],
        Score,
        10**400,
        np.nan,
        np.ma.masked,
        Decimal("sNaN"),
        "x" * 999,
    ],
)
def test_anything_else_is_no_number(value: Any) -> None:
    with pytest.raises(RewardError, match="which is not a finite number") as caught:
        check_scores("clip", [1.0, value], ITEMS)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "scores",
    [
        None,
        1.0,
        "ab",
        b"ab",
        bytearray(b"ab"),
        {1.0, 2.0},
        {0: 1.0, 1: 1.0},
        np.array(1.0),
        torch.tensor(1.0),
        object(),
    ],
)
def test_what_is_no_list_is_named(scores: Any) -> None:
    with pytest.raises(RewardError, match=r"'clip' gave .* instead of a list of scores"):
        check_scores("clip", scores, ITEMS)


def test_an_endless_generator_ends() -> None:
    with pytest.raises(RewardError, match="gave more than 2 scores for 2 images"):
        check_scores("clip", itertools.repeat(1.0), ITEMS)


def test_a_reward_gets_copies() -> None:
    """The items of a group share one copy of their metadata, as they share the metadata."""
    metadata = {"include": [{"class": "circle"}]}
    frozen = GREY.copy()
    frozen.flags.writeable = False
    first, second, other = copy_items([ScoreItem(frozen, "a", metadata), ScoreItem(GREY, "b", metadata), ITEMS[0]])
    first.image[:] = 0
    second.image[:] = 0
    (first.metadata or {})["include"].clear()
    assert (GREY == 127).all()
    assert metadata == {"include": [{"class": "circle"}]}
    assert second.metadata is first.metadata
    assert other.metadata is None
    (pair,) = copy_items([PairItem(frozen, GREY, "a", metadata)])
    pair.first[:] = pair.second[:] = 0
    assert (GREY == 127).all()


def test_details_are_as_small_and_flat_as_metadata() -> None:
    check_details("clip", None, "images[0]")
    check_details("clip", {"a": [1, 0.5, None, True, "é" * 40_000]}, "images[0]")
    circle: dict[str, Any] = {}
    circle["again"] = circle
    for details in ({"a": "é" * 60_000}, {1: 1}, {"a": {2: 1}}, {"a": 10**400}, {"a": math.nan}, {"a": {1, 2}}, circle):
        with pytest.raises(RewardError, match=r"'clip' gave details of images\[0\] that cannot be sent") as caught:
            check_details("clip", details, "images[0]")
        assert (caught.value.reward, caught.value.field) == ("clip", "images[0]")


def test_details_are_measured_before_they_are_written() -> None:
    """Ten lists that hold each other ten times are 10^10 values, and writing them would take the machine's memory."""
    shared: list[Any] = [0]
    for _ in range(10):
        shared = [shared] * 10
    for details in (
        {"a": shared},
        {"a": [{"b": "x" * 10} for _ in range(10_000)]},
        {"a": list(range(100_001))},
        {f"key {index}": 1 for index in range(15_000)},
    ):
        with pytest.raises(RewardError, match="is more than 100000 bytes of JSON"):
            check_details("clip", details, "images[0]")


@pytest.mark.parametrize(
    "wrong",
    [
        Comparison("tie", confidence="high"),  # type: ignore[arg-type]
        Comparison("tie", confidence=math.nan),
        Comparison("tie", asked=0),
        Comparison("tie", unparsed=2),
        Comparison("tie", asked="1"),  # type: ignore[arg-type]
        Comparison("tie", flipped="no"),  # type: ignore[arg-type]
        Comparison("tie", details=[1]),  # type: ignore[arg-type]
        "first",
        None,
    ],
)
def test_more_invalid_comparisons_are_refused(wrong: Any) -> None:
    with pytest.raises(RewardError, match=r"'judge' gave .*, which is not a valid comparison: "):
        check_comparisons("judge", [wrong], [PairItem(GREY, GREY, "a")])


def test_comparisons_in_any_list_are_taken() -> None:
    given = (Comparison("first", confidence=np.float32(0.5)) for _ in range(1))
    assert check_comparisons("judge", given, [PairItem(GREY, GREY, "a")]) == [Comparison("first", confidence=0.5)]


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
