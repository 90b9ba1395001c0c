"""Scoring, comparing and tournaments in this process, as `drpo-rewards score` and `compare` use them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.rewards import BrighterOf, Darkness, Failing, Redness

from drpo_rewards.errors import InvalidImageError, InvalidRequestError, RewardError
from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.in_process import better_of, compare_items, play_tournament, read_items, score_items

ITEMS = [ScoreItem(np.full((8, 8, 3), value, np.uint8), "a prompt") for value in (10, 200, 90, 40, 150)]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batches_of_any_size_give_the_same_scores_and_report_progress(batch_size: int) -> None:
    progress: list[tuple[int, int]] = []
    scores = score_items("dark", Darkness(), ITEMS, batch_size, lambda done, total: progress.append((done, total)))
    assert [score.value for score in scores] == [10, 200, 90, 40, 150]
    assert len(progress) == -(-len(ITEMS) // batch_size)
    assert progress[-1] == (5, 5)


def test_an_exception_of_a_reward_becomes_an_error_that_names_it() -> None:
    with pytest.raises(RewardError, match=r"reward 'odd' failed: ZeroDivisionError: nothing to divide by") as caught:
        score_items("odd", Failing(), [ScoreItem(ITEMS[0].image, "a prompt", {"how": "raise"})], 1)
    assert caught.value.reward == "odd"


def test_the_better_of_two_scores() -> None:
    low, high = Score(1.0), Score(2.0)
    assert [better_of(Redness(), *pair) for pair in ((low, high), (high, low), (low, low))] == [
        "second",
        "first",
        "tie",
    ]
    assert better_of(Darkness(), low, high) == "first", "its lower score is the better one"


def test_pairs_are_indices_of_items() -> None:
    comparisons = compare_items("judge", BrighterOf(), ITEMS, [(0, 1), (1, 0), (2, 2)])
    assert [comparison.winner for comparison in comparisons] == ["second", "first", "tie"]


@pytest.mark.parametrize("all_pairs", [False, True])
def test_a_tournament_finds_the_order(all_pairs: bool) -> None:
    progress: list[tuple[int, int]] = []
    result = play_tournament(
        "judge", BrighterOf(), ITEMS, 2, all_pairs, lambda done, total: progress.append((done, total))
    )
    values = [score.value for score in result.scores]
    assert sorted(range(5), key=lambda index: -values[index]) == [1, 4, 2, 3, 0]
    done = [count for count, _ in progress]
    assert done == sorted(done)
    assert done[-1] == result.summary.comparisons <= progress[-1][1]


def test_a_tournament_needs_two_images() -> None:
    with pytest.raises(InvalidRequestError, match="give at least two"):
        play_tournament("judge", BrighterOf(), ITEMS[:1], 2, False)


def test_a_file_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("a circle")
    with pytest.raises(InvalidImageError, match=r"text\.png"):
        read_items([tmp_path / "text.png"], "a prompt", None)


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (StopIteration(3), "StopIteration: 3"),
        (GeneratorExit("end"), "GeneratorExit: end"),
        (asyncio.CancelledError("gone"), "CancelledError: gone"),
        (SystemExit(4), "SystemExit: 4"),
        (Unreadable(), "Unreadable: its message cannot be read"),
    ],
)
def test_whatever_a_reward_raises_is_its_failure(raised: BaseException, line: str) -> None:
    class Odd(Redness):
        def score(self, items: Sequence[ScoreItem]) -> list[Score]:
            raise raised

    with pytest.raises(RewardError, match=f"reward 'odd' failed: {line}"):
        score_items("odd", Odd(), ITEMS, 2)
