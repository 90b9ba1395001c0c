"""Ranking in the background: the training step submits groups, and gets their rankings later.

The training step is synchronous, the ranking client is asynchronous. `BackgroundRanker` connects them: its thread can
rank several groups while the training thread generates the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from drpo.transfer import Arriving
from drpo_rewards import RankResponse
from drpo_rewards.api.contract import PairOptions
from drpo_rewards.client.background import BackgroundLoop


class Ranker(Protocol):
    """The interface of the ranking service for a training step. `drpo_rewards.client.AsyncRankingClient` has it."""

    async def rank(
        self,
        prompt: str,
        images: np.ndarray,
        *,
        metadata: dict[str, Any] | None = None,
        pairs: PairOptions | None = None,
        request_id: str | None = None,
    ) -> RankResponse:
        """Ranks the K images (K, H, W, 3) uint8 of one group."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...


@dataclass(frozen=True)
class TimedRanking:
    """The response to a ranking request, and the seconds from its submission to the response."""

    response: RankResponse
    seconds: float


class BackgroundRanker:
    """Ranks groups on a background thread. Close it, or use it in a `with` block.

    Args:
        make_ranker: makes the ranker. It is called on the background thread, because an asynchronous client belongs to
            the event loop in which it is made.
    """

    def __init__(self, make_ranker: Callable[[], Ranker]) -> None:
        async def make() -> Ranker:
            return make_ranker()

        self._loop = BackgroundLoop("ranking")
        try:
            self._ranker = self._loop.run(make())
        except BaseException:
            self._loop.close()
            raise

    def submit(
        self,
        prompt: str,
        images_KHWC: np.ndarray | Arriving,
        *,
        metadata: Mapping[str, Any] | None,
        pairs: PairOptions | None,
        request_id: str,
    ) -> Future[TimedRanking]:
        """Starts to rank one group, and returns at once, even if the images are still on their way.

        The future raises the ranker's errors.
        """

        async def rank() -> TimedRanking:
            started = time.perf_counter()
            images = images_KHWC
            if isinstance(images, Arriving):
                images = await asyncio.to_thread(images.wait) if images.waits else images.wait()
            response = await self._ranker.rank(
                prompt,
                images,
                metadata=dict(metadata) if metadata is not None else None,
                pairs=pairs,
                request_id=request_id,
            )
            return TimedRanking(response, time.perf_counter() - started)

        return self._loop.submit(rank())

    def close(self) -> None:
        """Closes the ranker and ends the thread. A second call does nothing."""
        if self._loop.closed:
            return
        try:
            self._loop.submit(self._ranker.close()).result(timeout=10)
        finally:
            self._loop.close()

    def __enter__(self) -> BackgroundRanker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
