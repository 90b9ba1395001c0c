"""Ranks in this process, by brightness, in no time: what a step costs without its rewards."""

from __future__ import annotations

from typing import Any

import numpy as np

from drpo_rewards import RankResponse
from drpo_rewards.api.contract import PairOptions
from drpo_rewards.api.question import ReplicaAnswer
from drpo_rewards.api.scores import Score
from drpo_rewards.operations import RANK
from drpo_rewards.operations.base import ServedRewards
from drpo_rewards.operations.rank import RankOptions

NAME = "brightness"


class BrightnessRanker:
    """See `drpo.training.ranking.Ranker`. From the scores on it answers as the service does."""

    async def rank(
        self,
        prompt: str,
        images: np.ndarray,
        *,
        metadata: dict[str, Any] | None = None,
        pairs: PairOptions | None = None,
        request_id: str | None = None,
    ) -> RankResponse:
        """Ranks by `score`."""
        options = RankOptions(prompt=prompt, rewards={NAME: 1.0}, pairs=pairs, request_id=request_id)
        served = ServedRewards([NAME], {})
        answer = ReplicaAnswer(f"{NAME}-1", scores=[Score(score) for score in self.score(prompt, images, metadata)])
        return RANK.answer(options, RANK.question(options, len(images), served), {NAME: answer}, served)

    def score(self, prompt: str, images: np.ndarray, metadata: dict[str, Any] | None) -> list[float]:
        """The mean of each image."""
        return [float(image.mean()) for image in images]

    async def close(self) -> None:
        """There is nothing to close."""
