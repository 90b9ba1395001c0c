"""What a service needs from any reward: its description, an item for a probe, and checks of what it returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from drpo_rewards.api.contract import Metric, ModelInfo
from drpo_rewards.errors import RewardError
from drpo_rewards.rewards.base import AnyReward, Comparison, Item, PairItem, PairwiseReward, Reward, Score, ScoreItem


def is_pairwise(reward: AnyReward) -> TypeGuard[PairwiseReward]:
    """Return whether the reward compares two images instead of scoring each."""
    return not isinstance(reward, Reward)


def describe(name: str, reward: AnyReward) -> ModelInfo:
    """Make the entry of `GET /v1/models` for a reward that is served as `name`."""
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
        metrics=list(getattr(reward, "metrics", ())),
        needs_metadata=getattr(reward, "needs_metadata", False),
    )


def probe(reward: AnyReward) -> Item:
    """Return the item that a readiness check sends to the reward: its `probe`, or a small grey image."""
    grey, prompt = np.full((64, 64, 3), 127, dtype=np.uint8), "a picture"
    default = PairItem(grey, grey, prompt) if is_pairwise(reward) else ScoreItem(grey, prompt)
    return getattr(reward, "probe", default)


def check_scores(
    name: str,
    scores: list[Score],
    items: Sequence[ScoreItem],
    fields: Sequence[str] | None = None,
    metrics: Sequence[Metric] = (),
) -> list[Score]:
    """Check what a reward's `score` returned, and return it.

    Args:
        name: the reward's name, for errors.
        scores: what the reward returned for `items`.
        items: the scored items.
        fields: the name of each item in errors; `images[0]` and so on by default.
        metrics: the metrics that the reward declares.

    Raises:
        RewardError: `scores` does not have one finite score per item, or one of them lacks a declared metric.
    """
    if len(scores) != len(items):
        raise RewardError(f"reward {name!r} gave {len(scores)} scores for {len(items)} images", reward=name)
    for index, score in enumerate(scores):
        field = fields[index] if fields else f"images[{index}]"
        if not _is_finite_number(score.value):
            message = f"reward {name!r} gave {score.value!r} for {field}, which is not a finite number"
            raise RewardError(message, reward=name, field=field)
        for metric in metrics:
            value = (score.details or {}).get(metric.name)
            if not _is_finite_number(value):
                message = f"reward {name!r} gave {value!r} as its metric {metric.name!r} of {field}"
                raise RewardError(f"{message}, which is not a finite number", reward=name, field=field)
    return scores


def check_comparisons(name: str, comparisons: list[Comparison], items: Sequence[PairItem]) -> list[Comparison]:
    """Check what a reward's `compare` returned, and return it.

    Args:
        name: the reward's name, for errors.
        comparisons: what the reward returned for `items`.
        items: the compared pairs.

    Raises:
        RewardError: `comparisons` does not have one valid Comparison per pair.
    """
    if len(comparisons) != len(items):
        raise RewardError(f"reward {name!r} gave {len(comparisons)} comparisons for {len(items)} pairs", reward=name)
    for comparison in comparisons:
        confidence = comparison.confidence
        if comparison.winner not in ("first", "second", "tie") or not (confidence is None or 0 <= confidence <= 1):
            raise RewardError(f"reward {name!r} gave {comparison!r}, which is not a valid comparison", reward=name)
    return comparisons


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
