"""Pairs are distinct, ordered, never tied, uniform, and the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.ranking.pairs import draw_pairs

groups = st.lists(st.integers(0, 3).map(float), min_size=2, max_size=10)


@given(groups, st.integers(1, 20), st.integers(0, 2**63 - 1))
def test_random_pairs(scores: list[float], count: int, seed: int) -> None:
    pairs = draw_pairs(scores, count, "random", seed)
    assert len(pairs) == (0 if len(set(scores)) == 1 else count)
    assert all(scores[winner] > scores[loser] for winner, loser in pairs)
    assert pairs == draw_pairs(scores, count, "random", seed)


def test_random_pairs_are_uniform_over_untied_pairs() -> None:
    # four untied pairs of five: (0, 1) is tied
    drawn = Counter(draw_pairs([1.0, 1.0, 2.0, 0.0], 20_000, seed=3))
    assert set(drawn) == {(2, 0), (2, 1), (2, 3), (0, 3), (1, 3)}
    assert all(abs(number - 4000) < 300 for number in drawn.values())  # five standard deviations


def test_another_seed_draws_other_pairs() -> None:
    assert draw_pairs(list(range(24)), 12, seed=1) != draw_pairs(list(range(24)), 12, seed=2)


def test_extremes_by_hand() -> None:
    assert draw_pairs([0.3, 0.9, 0.1, 0.5, 0.7], 2, "extremes") == [(1, 2), (4, 0)]


def test_extremes_leave_tied_pairs_out() -> None:
    assert draw_pairs([1.0, 0.5, 0.5, 0.0], 2, "extremes") == [(0, 3)]
    assert draw_pairs([1.0, 1.0], 1, "extremes") == []


def test_extremes_need_two_images_per_pair() -> None:
    with pytest.raises(InvalidRequestError, match="at most 2 pairs") as caught:
        draw_pairs([1, 2, 3, 4, 5], 3, "extremes")
    assert caught.value.field == "pairs.count"
