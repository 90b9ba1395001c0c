"""The ranking service's own pure functions, called in this process: same rewards, mixture and pairs, no server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from drpo_rewards import RankResponse
from drpo_rewards.api.contract import ModelInfo, Normalize, PairOptions, RewardResult
from drpo_rewards.errors import RewardError
from drpo_rewards.operations.compare import CompareResponse, Verdict
from drpo_rewards.ranking.mixture import combine
from drpo_rewards.ranking.pairs import draw_pairs
from drpo_rewards.rewards.base import PairItem, Reward, ScoreItem
from drpo_rewards.rewards.checks import check_scores, describe


class LocalRanker:
    """Ranks with one reward, in a thread, with the results of the service."""

    def __init__(self, name: str, reward: Reward, normalize: Normalize = "zscore") -> None:
        self.name = name
        self.reward = reward
        self.normalize = normalize

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
        declared = describe(self.name, self.reward).metrics
        try:
            scores = check_scores(self.name, await asyncio.to_thread(self.reward.score, items), items, None, declared)
        except RuntimeError as error:  # the service does the same with whatever a reward raises
            raise RewardError(str(error), reward=self.name) from error
        values = [score.value for score in scores]
        ranking = combine({self.name: values}, {self.name: 1.0}, self.normalize)
        result = RewardResult(
            scores=values,
            weight=1.0,
            version=self.reward.version,
            details=[score.details for score in scores],
            metrics={metric.name: [float((one.details or {})[metric.name]) for one in scores] for metric in declared},
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
        """The reward as the service describes it."""
        return [describe(self.name, self.reward)]


class LocalClient:
    """Has the methods of `RankingClient`, but ranks in this process."""

    def __init__(self, reward: Reward, name: str = "geneval") -> None:
        self.ranker = LocalRanker(name, reward)
        self.requests: list[tuple[str, int]] = []

    def rank(
        self,
        prompt: str,
        images: np.ndarray,
        *,
        metadata: dict[str, Any] | None,
        details: bool,
        rewards: Mapping[str, float] | None = None,
        mixture: str | None = None,
    ) -> RankResponse:
        self.requests.append((prompt, len(images)))
        return asyncio.run(self.ranker.rank(prompt, images, metadata=metadata))

    def compare(self, prompt: str, first: np.ndarray, second: np.ndarray, *, model: str) -> CompareResponse:
        """Asks a pairwise reward, as the service does."""
        judge: Any = self.ranker.reward
        (found,) = judge.compare([PairItem(first, second, prompt)])
        verdict = Verdict(reward=model, version=judge.version, flipped=found.flipped, unparsed=found.unparsed)
        return CompareResponse(request_id="local", model=model, winner=found.winner, verdict=verdict)

    def models(self) -> list[ModelInfo]:
        return self.ranker.models()
