"""Ranking beside the training thread: groups are submitted, and their answers awaited later.

The training step is plain synchronous tensor code. The ranking client is asynchronous. `RankingLoop` is the bridge:
an event loop on a thread of its own, on which up to a few groups are being ranked while the training thread generates
the next one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from drpo_rewards import RankResponse
from drpo_rewards.api.contract import PairOptions


class Ranker(Protocol):
    """What a training step needs of the ranking service; `drpo_rewards.client.AsyncRankingClient` has it."""

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


@dataclass(frozen=True)
class Ranking:
    """An answer, and the seconds from submission to answer."""

    response: RankResponse
    seconds: float


class RankingLoop:
    """Submits groups to a ranker on a thread of its own. Close it, or use it in a `with` block.

    Args:
        make_ranker: builds the ranker; called on the loop's thread, because asynchronous clients belong to the loop
            they are made in.
    """

    def __init__(self, make_ranker: Callable[[], Ranker]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ranking", daemon=True)
        self._thread.start()
        self._ranker = self.call(make_ranker)

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs a plain function on the loop's thread and returns what it returns."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def submit(
        self,
        prompt: str,
        images_KHWC: np.ndarray,
        *,
        metadata: Mapping[str, Any] | None,
        pairs: PairOptions,
        request_id: str,
    ) -> Future[Ranking]:
        """Starts the ranking of one group and returns at once. The future raises what the ranker raised."""

        async def rank() -> Ranking:
            started = time.perf_counter()
            response = await self._ranker.rank(
                prompt,
                images_KHWC,
                metadata=dict(metadata) if metadata is not None else None,
                pairs=pairs,
                request_id=request_id,
            )
            return Ranking(response, time.perf_counter() - started)

        return asyncio.run_coroutine_threadsafe(rank(), self._loop)

    def close(self) -> None:
        """Closes the ranker, if it can be closed, and ends the thread."""
        if self._loop.is_closed():
            return
        if hasattr(self._ranker, "close"):
            asyncio.run_coroutine_threadsafe(self._ranker.close(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def __enter__(self) -> RankingLoop:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
