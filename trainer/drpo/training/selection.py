"""Candidates from several rounds: those that passed against those that failed, as in the authors' training on GenEval.

A reward that only says yes or no seldom says both often enough within one group. So candidates are generated and
scored, without a graph, round after round, until enough of them have passed and enough have failed. A few of each are
drawn at random as winners and losers. These candidates are then generated again, now with their graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drpo.config import RolloutsConfig


@dataclass(frozen=True)
class Selection:
    """The chosen candidates.

    Attributes:
        noise_KChw: what they are generated from.
        scores_K: their scores, from before they are generated again.
        pairs_M2: each winner and each loser once, int64.
        queries_Q: indices of the candidates that are moved: all but the losers, int64.
    """

    noise_KChw: Tensor
    scores_K: Tensor
    pairs_M2: Tensor
    queries_Q: Tensor


class Rollouts:
    """The candidates of all rounds so far, by whether they passed; a random choice of each class is kept.

    Args:
        settings: the section `training.rollouts`.
        seed: of what is kept and drawn.
    """

    def __init__(self, settings: RolloutsConfig, seed: int) -> None:
        self._settings = settings
        self._random = torch.Generator().manual_seed(seed)
        self._passed: list[tuple[Tensor, float]] = []
        self._failed: list[tuple[Tensor, float]] = []

    def add(self, noise_KChw: Tensor, scores_K: Sequence[float]) -> None:
        """Adds the candidates of a round."""
        for noise_Chw, score in zip(noise_KChw, scores_K, strict=True):
            (self._passed if score >= self._settings.threshold else self._failed).append((noise_Chw, score))
        self._passed = self._draw(self._passed, self._settings.keep)
        self._failed = self._draw(self._failed, self._settings.keep)

    @property
    def complete(self) -> bool:
        """Whether enough candidates have passed, and enough have failed."""
        return min(len(self._passed), len(self._failed)) >= self._settings.supports

    def select(self) -> Selection | None:
        """Draws winners and losers; None if there are too few of either."""
        if not self.complete:
            return None
        count = self._settings.supports
        passed, failed = (self._draw(kept, len(kept)) for kept in (self._passed, self._failed))
        winners_M = torch.arange(count)
        losers_M = len(passed) + winners_M
        spare = torch.arange(len(passed) + count, len(passed) + len(failed))
        queries_Q = torch.cat([torch.arange(len(passed)), spare])
        pairs_M2 = torch.stack([winners_M, losers_M], dim=1)
        noises, scores = zip(*passed, *failed, strict=True)
        return Selection(torch.stack(noises), torch.tensor(scores), pairs_M2, queries_Q)

    def _draw(self, kept: list[tuple[Tensor, float]], count: int) -> list[tuple[Tensor, float]]:
        """At most `count` of them in random order."""
        return [kept[i] for i in torch.randperm(len(kept), generator=self._random)[:count].tolist()]
