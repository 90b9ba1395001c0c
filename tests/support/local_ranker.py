"""The ranking service's own pure functions, called in this process: same rewards, mixture and pairs, no server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo_rewards.api.contract import Metric, ModelInfo, PairOptions, RankResponse, RewardResult
from drpo_rewards.errors import RewardError
from drpo_rewards.ranking.mixture import combine
from drpo_rewards.ranking.pairs import draw_pairs
from drpo_rewards.rewards.base import Reward, Score, ScoreItem, checked_scores, describe


class LocalRanker:
    """Ranks with one reward, off the event loop, as the service would."""

    def __init__(self, name: str, reward: Reward) -> None:
        self.name = name
        self.reward = reward

    async def rank(
        self,
        prompt: str,
        images: np.ndarray,
        *,
        metadata: dict[str, Any] | None = None,
        pairs: PairOptions | None = None,
        request_id: str | None = None,
    ) -> RankResponse:
        """See `drpo.training.ranking.Ranker`."""
        items = [ScoreItem(image, prompt, metadata) for image in images]
        try:
            scores = await asyncio.to_thread(checked_scores, self.name, self.reward, items)
        except RuntimeError as error:  # the service does the same with whatever a reward raises
            raise RewardError(str(error), reward=self.name) from error
        values = [score.value for score in scores]
        ranking = combine({self.name: values}, {self.name: 1.0})
        result = RewardResult(
            scores=values,
            weight=1.0,
            version=self.reward.version,
            details=[score.details for score in scores],
            metrics=self._metrics(scores),
        )
        drawn = draw_pairs(ranking.combined, pairs.count, pairs.strategy, pairs.seed) if pairs else []
        return RankResponse(
            request_id=request_id or "local",
            combined=ranking.combined,
            order=ranking.order,
            ranks=ranking.ranks,
            pairs=drawn,
            all_tied=ranking.all_tied,
            rewards={self.name: result},
        )

    async def close(self) -> None:
        """There is nothing to close."""

    def models(self) -> list[ModelInfo]:
        """What the service says of the reward."""
        return [describe(self.name, self.reward).model_copy(update={"metrics": list(self._declared)})]

    @property
    def _declared(self) -> Sequence[Metric]:
        return getattr(self.reward, "metrics", ())

    def _metrics(self, scores: Sequence[Score]) -> dict[str, list[float]]:
        """The declared metrics that every score has."""
        names = [metric.name for metric in self._declared if all(metric.name in (one.details or {}) for one in scores)]
        return {name: [float((one.details or {})[name]) for one in scores] for name in names}
