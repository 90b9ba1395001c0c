"""Ranks in this process, by brightness, in no time: what a step costs without its rewards."""

from __future__ import annotations

from typing import Any

import numpy as np

from drpo_rewards import RankResponse
from drpo_rewards.api.contract import PairOptions


class BrightnessRanker:
    """See `drpo.training.ranking.Ranker`."""

    async def rank(
        self,
        prompt: str,
        images: np.ndarray,
        *,
        metadata: dict[str, Any] | None = None,
        pairs: PairOptions | None = None,
        request_id: str | None = None,
    ) -> RankResponse:
        """Ranks by the mean of each image. The pairs are the best with the worst, from the start again if too few."""
        scores = [float(image.mean()) for image in images]
        order = [int(index) for index in np.argsort(scores, kind="stable")[::-1]]
        half = len(order) // 2
        best_and_worst = list(zip(order[:half], order[::-1][:half], strict=True))
        wanted = pairs.count if pairs is not None else 0
        return RankResponse(
            request_id=request_id or "profile",
            combined=scores,
            order=order,
            ranks=[order.index(index) for index in range(len(order))],
            pairs=[best_and_worst[number % half] for number in range(wanted)],
            all_tied=min(scores) == max(scores),
            rewards={},
        )

    async def close(self) -> None:
        """There is nothing to close."""
