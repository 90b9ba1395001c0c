"""The client of a ranking service, for code without asyncio.

with RankingClient("http://127.0.0.1:8000") as client:
    ranking = client.rank("a red circle", ["a.png", "b.png"])
best = ranking.order[0]
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from drpo_rewards.api.contract import ModelInfo, Readiness
from drpo_rewards.api.images import ImageLike, Images
from drpo_rewards.client.asynchronous import AsyncRankingClient, Group
from drpo_rewards.client.background import BackgroundLoop
from drpo_rewards.client.batch import make_batch
from drpo_rewards.operations.base import Operation, OptionsT, ResponseT
from drpo_rewards.operations.compare import CompareResponse
from drpo_rewards.operations.rank import RankResponse
from drpo_rewards.operations.rerank_contract import RerankResponse
from drpo_rewards.operations.score import ScoreResponse

Scores = dict[str, np.ndarray]


class RankingClient:
    """An AsyncRankingClient whose event loop runs on a background thread.

    Args:
        address: the service's address, see AsyncRankingClient.
        options: the other arguments of AsyncRankingClient.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self._client = AsyncRankingClient(address, **options)
        self._loop = BackgroundLoop("ranking-client")

    def rank(self, prompt: str, images: Images, **options: Any) -> RankResponse:
        """See AsyncRankingClient.rank. May be called from several threads at the same time."""
        return self._loop.run(self._client.rank(prompt, images, **options))

    def score(self, groups: Sequence[Group | tuple[Any, ...]], **options: Any) -> ScoreResponse:
        """See AsyncRankingClient.score."""
        return self._loop.run(self._client.score(groups, **options))

    def score_batch(self, images: Images, prompts: str | Sequence[str], metadata: Any = None, **options: Any) -> Scores:
        """See AsyncRankingClient.score_batch."""
        return self._loop.run(self._client.score_batch(images, prompts, metadata, **options))

    def submit_score_batch(
        self, images: Images, prompts: str | Sequence[str], metadata: Any = None, **options: Any
    ) -> Future[Scores]:
        """Start `score_batch` and return at once: `result()` waits for the scores, `cancel()` gives them up.

        The images are ready for sending when this returns, so the caller may change or free them.
        """
        batch = make_batch(images, prompts, metadata).copy()
        return self._loop.submit(self._client.score_prepared(batch, **options))

    def compare(self, prompt: str, first: ImageLike, second: ImageLike, **options: Any) -> CompareResponse:
        """See AsyncRankingClient.compare."""
        return self._loop.run(self._client.compare(prompt, first, second, **options))

    def rerank(self, query: str, documents: Images, **options: Any) -> RerankResponse:
        """See AsyncRankingClient.rerank."""
        return self._loop.run(self._client.rerank(query, documents, **options))

    def call(self, operation: Operation[OptionsT, ResponseT], fields: dict[str, Any], images: Images) -> ResponseT:
        """See AsyncRankingClient.call."""
        return self._loop.run(self._client.call(operation, fields, images))

    def models(self) -> list[ModelInfo]:
        """See AsyncRankingClient.models."""
        return self._loop.run(self._client.models())

    def readiness(self) -> Readiness:
        """See AsyncRankingClient.readiness."""
        return self._loop.run(self._client.readiness())

    def ready(self) -> bool:
        """See AsyncRankingClient.ready."""
        return self._loop.run(self._client.ready())

    def close(self) -> None:
        """Close the connections and end the thread. A second call does nothing."""
        if not self._loop.closed:
            self._loop.run(self._client.close())
            self._loop.close()

    def __enter__(self) -> RankingClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
