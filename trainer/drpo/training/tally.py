"""What the groups of one optimizer step add up to, on one worker and over all of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from drpo_rewards import RankResponse

STAGES = ("generate", "rank_wait", "rank", "features", "backward", "optimizer", "total")


@dataclass
class Tally:
    """Sums over groups; `merge` adds another worker's."""

    groups: int = 0
    dropped: int = 0
    tied: int = 0
    trained: int = 0
    images: int = 0
    last_error: str = ""
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, name: str, value: float) -> None:
        """Adds one observation of a metric that is reported as its mean."""
        self.sums[name] += float(value)
        self.counts[name] += 1

    def add_ranking(self, response: RankResponse) -> None:
        """Adds a group's raw scores:

        mean and spread within the group, each reward's mean, and GenEval's strict score.
        """
        total = sum(abs(result.weight) for result in response.rewards.values()) or 1.0
        blend_K = np.zeros(len(response.combined))
        for name, result in response.rewards.items():
            scores_K = np.asarray(result.scores)
            blend_K += result.weight / total * scores_K
            self.add(f"reward/{name}", scores_K.mean())
            strict = [one["strict"] for one in result.details or [] if one and "strict" in one]
            if strict:
                self.add("strict_mean", np.mean(strict))
        self.add("reward_mean", blend_K.mean())
        self.add("reward_std", blend_K.std())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds of the block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def merge(self, other: Tally) -> None:
        """Adds the groups of another worker."""
        for name in ("groups", "dropped", "tied", "trained", "images"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_error = self.last_error or other.last_error
        for name in ("sums", "counts", "seconds"):
            mine = getattr(self, name)
            for key, value in getattr(other, name).items():
                mine[key] += value

    def means(self) -> dict[str, float]:
        """The mean of every metric that was observed at all."""
        return {name: self.sums[name] / self.counts[name] for name in sorted(self.counts)}
