"""Score images, compare pairs and play tournaments with one reward in this process, without Ray or a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from drpo_rewards.api.images import decode, load
from drpo_rewards.api.metadata import check_keys, take_share
from drpo_rewards.errors import InvalidRequestError, RewardError, RewardsError
from drpo_rewards.ranking.tournament import Tournament, TournamentResult, seeding
from drpo_rewards.rewards.base import AnyReward, Comparison, PairItem, PairwiseReward, Reward, Score, ScoreItem
from drpo_rewards.rewards.checks import check_comparisons, check_scores, copy_items, describe

ResultT = TypeVar("ResultT")

Progress = Callable[[int, int], None]  # called with the number that is done, and the total


def read_items(files: Sequence[Path], prompt: str, metadata: dict[str, Any] | None) -> list[ScoreItem]:
    """Read image files into items of one prompt.

    Raises:
        InvalidImageError: a file is not an image; the message names it.
    """
    images = [decode(bytes(load(path, field=str(path))), field=str(path)) for path in files]
    return [ScoreItem(image, prompt, metadata) for image in images]


def score_items(
    name: str, reward: Reward, items: Sequence[ScoreItem], batch_size: int, on_progress: Progress = lambda *_: None
) -> list[Score]:
    """Score items in batches, and return one score per item, in order.

    Raises:
        RewardsError: the reward failed; the message names it.
    """
    metrics = describe(name, reward).metrics
    items = _take_metadata(name, reward, items)
    scores: list[Score] = []

    def score(batch: Sequence[ScoreItem]) -> list[Score]:
        return check_scores(name, reward.score(copy_items(batch)), batch, metrics=metrics)

    for start in range(0, len(items), batch_size):
        scores += _ask(name, partial(score, items[start : start + batch_size]))
        on_progress(len(scores), len(items))
    return scores


def compare_items(
    name: str, judge: PairwiseReward, items: Sequence[ScoreItem], pairs: Sequence[tuple[int, int]]
) -> list[Comparison]:
    """Compare pairs of items, which are given by their indices.

    Raises:
        RewardsError: the judge failed; the message names it.
    """
    items = _take_metadata(name, judge, items)
    pair_items = [
        PairItem(items[first].image, items[second].image, items[first].prompt, items[first].metadata)
        for first, second in pairs
    ]
    return _ask(name, lambda: check_comparisons(name, judge.compare(copy_items(pair_items)), pair_items))


def better_of(reward: Reward, first: Score, second: Score) -> Literal["first", "second", "tie"]:
    """Return which of two scores is the better one. Equal scores are a tie."""
    if first.value == second.value:
        return "tie"
    first_wins = (first.value > second.value) == getattr(reward, "higher_is_better", True)
    return "first" if first_wins else "second"


def play_tournament(
    name: str,
    judge: PairwiseReward,
    items: Sequence[ScoreItem],
    batch_size: int,
    all_pairs: bool,
    on_progress: Progress = lambda *_: None,
) -> TournamentResult:
    """Play a tournament of all items, which are images of one prompt.

    Args:
        name: the judge's name, for errors.
        judge: the judge.
        items: at least two items.
        batch_size: the most pairs in one call of the judge.
        all_pairs: compare every pair, instead of O(K log K) pairs.
        on_progress: called with the number of comparisons so far, and an upper bound on their total.

    Raises:
        InvalidRequestError: there are fewer than two items.
        RewardsError: the judge failed; the message names it.
    """
    if len(items) < 2:
        raise InvalidRequestError(f"reward {name!r} compares images; give at least two")
    tournament = Tournament(seeding(items[0].prompt, [item.image for item in items]), all_pairs)
    done = 0
    while pairs := tournament.next_round():
        comparisons: list[Comparison] = []
        for start in range(0, len(pairs), batch_size):
            comparisons += compare_items(name, judge, items, pairs[start : start + batch_size])
            on_progress(done + len(comparisons), tournament.most_comparisons)
        done += len(comparisons)
        tournament.record(pairs, comparisons)
    return tournament.result()


def _take_metadata(name: str, reward: AnyReward, items: Sequence[ScoreItem]) -> list[ScoreItem]:
    """Return the items with the metadata that the reward reads. Any other key is an error, as in a service."""
    schema = describe(name, reward).metadata_schema
    shares = {id(item.metadata): item.metadata for item in items}
    for key, metadata in shares.items():
        check_keys(metadata, {name: schema})
        shares[key] = take_share(metadata, schema)
    return [replace(item, metadata=shares[id(item.metadata)]) for item in items]


def _ask(name: str, call: Callable[[], ResultT]) -> ResultT:
    """Call a reward. Any exception of it becomes a RewardsError that names it, as in a service.

    It catches even what is no Exception: a reward may raise SystemExit, or asyncio's CancelledError.
    """
    try:
        return call()
    except (RewardsError, KeyboardInterrupt):
        raise
    except BaseException as error:
        try:
            reason = str(error)
        except Exception:
            reason = "its message cannot be read"
        raise RewardError(f"reward {name!r} failed: {type(error).__name__}: {reason}", reward=name) from error
