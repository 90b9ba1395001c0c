"""The ranking service's own pure functions, called in this process: same rewards, mixture and pairs, no server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from drpo_rewards import RankResponse
from drpo_rewards.api.contract import ModelInfo, Normalize, PairOptions
from drpo_rewards.api.question import ReplicaAnswer
from drpo_rewards.errors import RewardError
from drpo_rewards.operations import RANK
from drpo_rewards.operations.base import ServedRewards
from drpo_rewards.operations.compare import CompareResponse, Verdict
from drpo_rewards.operations.rank import RankOptions
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
        described = describe(self.name, self.reward)
        items = [ScoreItem(image, prompt, metadata) for image in images]
        try:
            scored = await asyncio.to_thread(self.reward.score, items)
            scores = check_scores(self.name, scored, items, None, described.metrics)
        except RuntimeError as error:  # the service does the same with whatever a reward raises
            raise RewardError(str(error), reward=self.name) from error
        answer = ReplicaAnswer(
            described.version,
            sign=1 if described.higher_is_better else -1,
            scores=scores,
            metrics={
                one.name: [float((score.details or {})[one.name]) for score in scores] for one in described.metrics
            },
        )
        options = RankOptions(
            prompt=prompt,
            rewards={self.name: 1.0},
            normalize=self.normalize,
            metadata=metadata,
            pairs=pairs,
            details=True,
            request_id=request_id or "local",
        )
        served = ServedRewards([self.name], {})
        return RANK.answer(options, RANK.question(options, len(images), served), {self.name: answer}, served)

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

    def compare(
        self, prompt: str, first: np.ndarray, second: np.ndarray, *, model: str, metadata: dict[str, Any] | None = None
    ) -> CompareResponse:
        """Asks a pairwise reward, or compares the scores of a pointwise one, as the service does."""
        judge: Any = self.ranker.reward
        if not hasattr(judge, "compare"):
            one, other = self.rank(prompt, np.stack([first, second]), metadata=metadata, details=False).combined
            winner: Any = "first" if one > other else "second" if other > one else "tie"
            return CompareResponse(request_id="local", model=model, winner=winner, combined=[one, other])
        (found,) = judge.compare([PairItem(first, second, prompt)])
        verdict = Verdict(reward=model, version=judge.version, flipped=found.flipped, unparsed=found.unparsed)
        return CompareResponse(request_id="local", model=model, winner=found.winner, verdict=verdict)

    def models(self) -> list[ModelInfo]:
        return self.ranker.models()
