"""Rewards for training tests, deployed by the real service as `support.rewards:Class` or called in process."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from drpo_rewards.api.contract import Metric
from drpo_rewards.rewards.base import Score, ScoreItem


class Redness:
    """Mean of red minus the mean of green and blue; an adapter can learn it in a few steps. May be made slow."""

    version = "redness-1"
    metrics = (Metric(name="red_wins", description="red is stronger than green", unit="share"),)

    def __init__(self, seconds_per_group: float = 0.0) -> None:
        self.seconds_per_group = seconds_per_group

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        time.sleep(self.seconds_per_group)
        means = [item.image.astype(np.float64).mean(axis=(0, 1)) for item in items]
        return [Score(float(red - (green + blue) / 2), {"red_wins": int(red > green)}) for red, green, blue in means]


class FailsOn:
    """Redness, but prompts with a certain word cannot be scored, or tie."""

    version = "fails-1"

    def __init__(self, fail: str = "blue", tie: str = "green") -> None:
        self.fail = fail
        self.tie = tie
        self.redness = Redness()

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        if any(self.fail in item.prompt for item in items):
            raise RuntimeError(f"no score for {self.fail}")
        scores = self.redness.score(items)
        return [Score(0.0) if self.tie in item.prompt else score for item, score in zip(items, scores, strict=True)]
