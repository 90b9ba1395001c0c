"""Mixtures, against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo_rewards.ranking.mixture import combine

# On a grid, because scores that differ by less than rounding may tie.
scores = st.lists(st.integers(-(10**6), 10**6).map(lambda number: number / 1000), min_size=2, max_size=12)


def test_zscores_by_hand() -> None:
    # a: mean 2, deviations -1 0 1, population deviation sqrt(2/3); b is reversed, with a fifth of the weight
    ranking = combine({"a": [1, 2, 3], "b": [30, 20, 10]}, {"a": 4, "b": 1})
    z = 1 / math.sqrt(2 / 3)
    assert ranking.combined == pytest.approx([-0.8 * z + 0.2 * z, 0, 0.8 * z - 0.2 * z])
    assert ranking.order == [2, 1, 0]
    assert ranking.ranks == [2, 1, 0]
    assert ranking.weights == {"a": 0.8, "b": 0.2}
    assert not ranking.all_tied


def test_raw_by_hand() -> None:
    ranking = combine({"a": [1, 2], "b": [10, 0]}, {"a": 3, "b": 1}, "none")
    assert ranking.combined == pytest.approx([0.75 + 2.5, 1.5])


def test_rank_by_hand_with_a_tie() -> None:
    # worst 0, best 1; the two in the middle share the mean of 1/3 and 2/3
    assert combine({"a": [5, 1, 3, 3]}, {"a": 1}, "rank").combined == pytest.approx([1, 0, 0.5, 0.5])


def test_a_reward_with_equal_scores_adds_nothing() -> None:
    ranking = combine({"a": [0.1, 0.1, 0.1], "b": [1, 3, 2]}, {"a": 100, "b": 1})
    assert ranking.order == [1, 2, 0]
    assert all(math.isfinite(value) for value in ranking.combined)


def test_all_tied() -> None:
    ranking = combine({"a": [7, 7, 7]}, {"a": 1})
    assert ranking.combined == [0, 0, 0]
    assert ranking.all_tied
    assert ranking.order == [0, 1, 2]
    assert ranking.ranks == [0, 0, 0]


def test_ties_share_the_smaller_rank_and_keep_their_order() -> None:
    ranking = combine({"a": [1, 2, 2, 0]}, {"a": 1})
    assert ranking.order == [1, 2, 0, 3]
    assert ranking.ranks == [2, 0, 0, 3]


@pytest.mark.parametrize("names", [["c", "a", "b"], ["b", "c", "a"]])
def test_the_order_of_the_rewards_does_not_count(names: list[str]) -> None:
    """To the last bit: a map of gRPC has none, and sums of floats have one."""
    scores, weights = {"a": [0.8, 0.3], "b": [0.5, 0.6], "c": [0.9, 0.5]}, {"a": 0.7, "b": 0.2, "c": 0.1}
    other = combine({name: scores[name] for name in names}, {name: weights[name] for name in names}, "none")
    assert other.combined == combine(scores, weights, "none").combined


def test_a_negative_weight_is_a_penalty() -> None:
    assert combine({"a": [1, 2]}, {"a": -2}).order == [0, 1]


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": math.nan}, {"a": math.inf}])
def test_invalid_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"weight|name at least"):
        combine({"a": [1, 2]}, weights)


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        combine({"a": [1, math.nan]}, {"a": 1})


@given(scores, st.sampled_from(["zscore", "rank", "none"]))
def test_a_single_reward_decides_the_order(values: list[float], normalize: str) -> None:
    ranking = combine({"a": values}, {"a": 3.0}, normalize)  # type: ignore[arg-type]
    ordered = [values[index] for index in ranking.order]
    assert ordered == sorted(values, reverse=True)
    assert ranking.ranks == [sum(other > value for other in ranking.combined) for value in ranking.combined]


@given(scores, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_zscores_ignore_scale_and_offset(values: list[float], scale: float, offset: float) -> None:
    if np.ptp(values) < 1e-3:
        return  # below the offset's rounding
    plain = combine({"a": values}, {"a": 1}).combined
    moved = combine({"a": [scale * value + offset for value in values]}, {"a": 1}).combined
    assert moved == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("size", [1e308, 5e-324])
def test_huge_and_tiny_weights_have_shares(size: float) -> None:
    ranking = combine({"a": [1, 3, 2], "b": [3, 1, 2]}, {"a": size, "b": -size})
    assert ranking.weights == {"a": 0.5, "b": -0.5}
    assert ranking.order == [1, 2, 0]


def test_enormous_scores_do_not_overflow() -> None:
    assert combine({"a": [1e308, -1e308]}, {"a": 1}).combined == pytest.approx([1, -1])


@given(values=st.lists(st.floats(-100, 100), min_size=2, max_size=12), scale=st.floats(0.01, 100))
def test_rewards_that_cancel_out_tie_all_images(values: list[float], scale: float) -> None:
    """Rounding errors do not decide which image wins."""
    if max(values) - min(values) < 1e-3:
        return
    ranking = combine({"a": values, "b": [-scale * value for value in values]}, {"a": 0.5, "b": 0.5})
    assert ranking.all_tied
    assert ranking.combined == [0.0] * len(values)
