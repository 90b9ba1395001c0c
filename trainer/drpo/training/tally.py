"""Counts and metrics of the groups of one optimizer step, on one worker and over all of them.

Scores are logged under these names, each a mean over the groups of the step:

    reward/NAME          mean of the raw scores of reward NAME, in the reward's own unit
    reward_std/NAME      their standard deviation within a group
    reward/TYPE          of a differentiable reward in the trainer's process likewise, and reward_std/TYPE
    metric/NAME/METRIC   mean of a metric that reward NAME declares
    combined_mean        mean of the response's combined score within a group
    combined_std         its standard deviation within a group

The meaning of the combined score depends on the mixture's normalisation. With `zscore` its mean is always 0, and its
standard deviation shows how much the rewards agree: 1 if their z-scores are equal (as with a single reward), near 0 if
they cancel out. With `rank` it lies between 0 and 1, and with `none` it is a weighted sum of the raw scores.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from drpo_rewards import RankResponse

STAGES = ("generate", "rank_wait", "rank", "features", "reward_gradient", "backward", "optimizer", "total")


@dataclass
class Tally:
    """Counts, sums of metrics and seconds of some groups."""

    groups: int = 0
    dropped: int = 0
    tied: int = 0
    trained: int = 0
    images: int = 0
    last_error: str = ""
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _unsettled: list[tuple[str, Tensor]] = field(default_factory=list)

    def add(self, name: str, value: float | Tensor) -> None:
        """Adds one value of a metric, whose mean is reported. A tensor stays where it is until `settle`."""
        if isinstance(value, Tensor):
            self._unsettled.append((name, value.detach()))
            return
        self.sums[name] += float(value)
        self.counts[name] += 1

    def settle(self, last: Tensor) -> float:
        """Adds the values of all tensors, and returns that of one more. A GPU is waited for once, for all of them."""
        names, tensors = [name for name, _ in self._unsettled], [tensor for _, tensor in self._unsettled]
        self._unsettled = []
        *values, value = torch.stack([one.to(last.device, torch.float64) for one in [*tensors, last]]).tolist()
        for name, one in zip(names, values, strict=True):
            self.add(name, one)
        return float(value)

    def add_ranking(self, response: RankResponse) -> None:
        """Adds the scores of one ranked group, under the names in the module's docstring."""
        for name, result in response.rewards.items():
            scores_K = np.asarray(result.scores)
            self.add(f"reward/{name}", scores_K.mean())
            self.add(f"reward_std/{name}", scores_K.std())
            for metric, values in (result.metrics or {}).items():
                self.add(f"metric/{name}/{metric}", float(np.mean(values)))
        combined_K = np.asarray(response.combined)
        self.add("combined_mean", combined_K.mean())
        self.add("combined_std", combined_K.std())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds of this block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def merge(self, other: Tally) -> None:
        """Adds the tally of another worker."""
        for name in ("groups", "dropped", "tied", "trained", "images"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_error = self.last_error or other.last_error
        for name in ("sums", "counts", "seconds"):
            totals = getattr(self, name)
            for key, value in getattr(other, name).items():
                totals[key] += value

    def means(self) -> dict[str, float]:
        """The mean of every metric."""
        return {name: self.sums[name] / self.counts[name] for name in sorted(self.counts)}
