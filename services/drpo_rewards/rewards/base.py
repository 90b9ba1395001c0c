"""What a reward is: an object that scores images. Anything with `version` and `score` will do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from drpo_rewards.contract import ModelInfo
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


@runtime_checkable
class Reward(Protocol):
    """A scorer of images. Built once in each replica with the options of the configuration; called from one thread.

    Items of one call may come from different requests and have different sizes. The score of an item must not depend
    on the others. Raise `drpo_rewards.errors.InvalidRequestError` for an item that the caller got wrong; whatever
    else is raised, and any score that is not finite, fails the request and names the reward.

    Optional attributes: `description` (one line), `range` (lowest, highest), `higher_is_better` (True unless set),
    `needs_metadata`, and `probe` (a ScoreItem for the readiness check; a small grey picture unless set).
    """

    version: str

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One Score per item, in the items' order."""
        ...


def describe(name: str, reward: Reward) -> ModelInfo:
    """What `GET /v1/models` says of a reward."""
    return ModelInfo(
        name=name,
        description=getattr(reward, "description", (type(reward).__doc__ or "").strip().split("\n")[0]),
        version=reward.version,
        range=getattr(reward, "range", None),
        higher_is_better=getattr(reward, "higher_is_better", True),
        needs_metadata=getattr(reward, "needs_metadata", False),
    )


def probe(reward: Reward) -> ScoreItem:
    """The item that a readiness check scores."""
    grey = ScoreItem(image=np.full((64, 64, 3), 127, dtype=np.uint8), prompt="a picture")
    return getattr(reward, "probe", grey)


def checked_scores(name: str, reward: Reward, items: Sequence[ScoreItem]) -> list[Score]:
    """`reward.score(items)`, or a RewardError where what came back is not one finite score per item."""
    scores = reward.score(items)
    if len(scores) != len(items):
        raise RewardError(f"reward {name!r} gave {len(scores)} scores for {len(items)} images", reward=name)
    for index, score in enumerate(scores):
        if not isinstance(score.value, int | float | np.number) or not math.isfinite(score.value):
            raise RewardError(
                f"reward {name!r} gave {score.value!r} for images[{index}], which is no score",
                reward=name,
                field=f"images[{index}]",
            )
    return scores
