"""What a reward is: an object that scores images, or compares two. Anything with `version` and `score` will do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.errors import RewardError


@dataclass(frozen=True)
class ScoreItem:
    """One image to score. The array is read-only: it may lie in memory that other processes share."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    prompt: str
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Score:
    """One image's score, and what else the reward has to say about it (JSON types only)."""

    value: float
    details: dict[str, Any] | None = None


@dataclass(frozen=True)
class PairItem:
    """Two images of one prompt to compare. The arrays are read-only."""

    first: np.ndarray  # (H, W, 3) uint8 RGB; the two may differ in size
    second: np.ndarray
    prompt: str
    metadata: dict[str, Any] | None = None

    def swap(self) -> PairItem:
        """The same pair the other way round: what a judge that minds the order is asked as well."""
        return PairItem(self.second, self.first, self.prompt, self.metadata)


@dataclass(frozen=True)
class Comparison:
    """Which image of a pair is the better one. A judge that cannot tell says tie; one that fails raises."""

    winner: Literal["first", "second", "tie"]
    confidence: float | None = None  # 0 to 1, where the reward has one
    details: dict[str, Any] | None = None
    flipped: bool | None = None  # whether the order of the two mattered; None: only one order was asked
    unparsed: int = 0  # of the `asked` answers, those that could not be read as a verdict
    asked: int = 1

    def swap(self) -> Comparison:
        """The same judgement of the swapped pair."""
        swapped: dict[str, Literal["first", "second", "tie"]] = {"first": "second", "second": "first", "tie": "tie"}
        return replace(self, winner=swapped[self.winner])


@runtime_checkable
class Reward(Protocol):
    """A scorer of images. Built once in each replica with the options of the configuration; called from one thread.

    Items of one call may come from different requests and have different sizes. The score of an item must not depend
    on the others. Raise `drpo_rewards.errors.InvalidRequestError` for an item that the caller got wrong; whatever
    else is raised, and any score that is not finite, fails the request and names the reward.

    Optional attributes: `description` (what it measures, in a line), `range` (lowest, highest), `higher_is_better`
    (True unless set), `needs_metadata`, `checkpoint`, `revision` and `license` (of the weights behind it), and `probe`
    (a ScoreItem for the readiness check; a small grey picture unless set).
    """

    version: str

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One Score per item, in the items' order."""
        ...


class StagedReward:
    """A Reward whose work has two halves, so that a service prepares the next batch while the network scores this one.

    Subclasses write `prepare`, which is called from one thread, and `score_prepared`, from another.
    """

    def prepare(self, items: Sequence[ScoreItem]) -> Any:
        """Everything that needs no network and no GPU: pictures scaled and cut, prompts as tokens, in pinned memory."""
        raise NotImplementedError

    def score_prepared(self, prepared: Any) -> list[Score]:
        """One Score per item of what `prepare` made."""
        raise NotImplementedError

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return self.score_prepared(self.prepare(items))


@runtime_checkable
class PairwiseReward(Protocol):
    """A judge of two images: what a Reward is, but `compare` in the place of `score`.

    It answers `POST /v1/compare`; where a group is to be scored or ranked, the service has it judge pairs of the images
    and fits scores to the outcome (`drpo_rewards.ranking.tournament`). Everything else, the optional attributes as
    well, is as for Reward; `probe` is a PairItem.
    """

    version: str

    def compare(self, items: Sequence[PairItem]) -> list[Comparison]:
        """One Comparison per item, in the items' order."""
        ...


AnyReward = Reward | PairwiseReward
Item = ScoreItem | PairItem
Result = Score | Comparison


def is_pairwise(reward: AnyReward) -> bool:
    return not isinstance(reward, Reward)


def describe(name: str, reward: AnyReward) -> ModelInfo:
    """What `GET /v1/models` says of a reward."""
    return ModelInfo(
        name=name,
        description=getattr(reward, "description", (type(reward).__doc__ or "").strip().split("\n")[0]),
        mode="pairwise" if is_pairwise(reward) else "pointwise",
        version=reward.version,
        checkpoint=getattr(reward, "checkpoint", None),
        revision=getattr(reward, "revision", None),
        license=getattr(reward, "license", None),
        range=getattr(reward, "range", None),
        higher_is_better=getattr(reward, "higher_is_better", True),
        needs_metadata=getattr(reward, "needs_metadata", False),
    )


def probe(reward: AnyReward) -> Item:
    """The item that a readiness check scores."""
    grey, prompt = np.full((64, 64, 3), 127, dtype=np.uint8), "a picture"
    default = PairItem(grey, grey, prompt) if is_pairwise(reward) else ScoreItem(grey, prompt)
    return getattr(reward, "probe", default)


def checked_scores(
    name: str, reward: Reward, items: Sequence[ScoreItem], fields: Sequence[str] | None = None
) -> list[Score]:
    """`reward.score(items)`, or a RewardError where what came back is not one finite score per item.

    `fields` says how an error names each item; its place in `items` unless given.
    """
    return check_scores(name, reward.score(items), items, fields)


def check_scores(
    name: str, scores: list[Score], items: Sequence[ScoreItem], fields: Sequence[str] | None = None
) -> list[Score]:
    """`scores`, or a RewardError as `checked_scores` raises it."""
    if len(scores) != len(items):
        raise RewardError(f"reward {name!r} gave {len(scores)} scores for {len(items)} images", reward=name)
    for index, score in enumerate(scores):
        if not isinstance(score.value, int | float | np.number) or not math.isfinite(score.value):
            field = fields[index] if fields else f"images[{index}]"
            raise RewardError(
                f"reward {name!r} gave {score.value!r} for {field}, which is no score", reward=name, field=field
            )
    return scores


def checked_comparisons(name: str, reward: PairwiseReward, items: Sequence[PairItem]) -> list[Comparison]:
    """`reward.compare(items)`, or a RewardError where what came back is not one judgement per item."""
    comparisons = reward.compare(items)
    if len(comparisons) != len(items):
        raise RewardError(f"reward {name!r} gave {len(comparisons)} judgements for {len(items)} pairs", reward=name)
    for comparison in comparisons:
        sure = comparison.confidence
        if comparison.winner not in ("first", "second", "tie") or not (sure is None or 0 <= sure <= 1):
            raise RewardError(f"reward {name!r} gave {comparison!r}, which is no judgement", reward=name)
    return comparisons
