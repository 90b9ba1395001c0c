"""Clients of a ranking service: one call interface over HTTP, gRPC and Ray Serve handles, async and sync.

    client = RankingClient("http://127.0.0.1:8000")
    ranking = client.rank("a red circle", ["a.png", "b.png"])
    best = ranking.order[0]

`score`, `compare` and `rerank` are the service's other calls.

Ranking is idempotent, so what failed for a passing reason (overload, a replica that died) is tried again, with
jitter and not before `Retry-After`; what the request itself got wrong is raised at once. Errors are typed
(`drpo_rewards.errors`) and the same over every transport.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay

from drpo_rewards.api.contract import ModelInfo, Normalize, PairOptions, RankResponse, Readiness, parse
from drpo_rewards.api.images import ImageLike, Images, check_array, load
from drpo_rewards.client.retries import may_retry, wait
from drpo_rewards.client.transports import open_transport
from drpo_rewards.errors import RankingTimeoutError, RewardsError
from drpo_rewards.operations import (
    COMPARE,
    RANK,
    RERANK,
    SCORE,
    AnswerT,
    CompareResponse,
    Operation,
    OptionsT,
    RerankResponse,
    ScoreResponse,
)

Answer = TypeVar("Answer")


class Group(NamedTuple):
    """One group of a `score` call."""

    prompt: str
    images: Images
    metadata: dict[str, Any] | None = None


class AsyncRankingClient:
    """For asyncio. Belongs to the event loop of its first call; close it with `close` or `async with`.

    address: "http://host:port", "grpc://host:port", or "serve://app" inside the service's Ray cluster.
    timeout_s: the deadline of a whole call, all its attempts and waits together.
    max_in_flight: calls on their way at a time; further ones wait their turn (their deadline starts then).
    retries: how often a call that may be tried again is tried again.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_in_flight: int = 8,
        retries: int = 3,
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.retries = retries
        self._transport = open_transport(address, api_key)
        self._turns = asyncio.Semaphore(max_in_flight)

    async def rank(
        self,
        prompt: str,
        images: Images,
        *,
        rewards: dict[str, float] | None = None,
        mixture: str | None = None,
        normalize: Normalize | None = None,
        metadata: dict[str, Any] | None = None,
        pairs: PairOptions | None = None,
        details: bool = False,
        all_pairs: bool = False,
        request_id: str | None = None,
    ) -> RankResponse:
        """Rank K candidate images of one prompt.

        `images` is a (K, H, W, 3) uint8 array, or K arrays, PIL images, files' bytes or paths in any mixture. Name
        `rewards` with weights of your own or a configured `mixture`; neither means the mixture `default`.
        `normalize` None is the mixture's own; `all_pairs` has a judge compare every pair. Raises a RewardsError: the
        request was wrong, a reward failed, or the service could not be had.
        """
        fields = {
            "prompt": prompt,
            "rewards": rewards,
            "mixture": mixture,
            "normalize": normalize,
            "metadata": metadata,
            "pairs": pairs,
            "details": details,
            "all_pairs": all_pairs,
            "request_id": request_id,
        }
        return await self._perform(RANK, fields, images)

    async def score(
        self,
        groups: Sequence[Group | tuple[Any, ...]],
        *,
        rewards: Sequence[str] | None = None,
        details: bool = False,
        all_pairs: bool = False,
        request_id: str | None = None,
    ) -> ScoreResponse:
        """Raw scores of groups, each a prompt, its images (one is enough) and, where a reward needs it, metadata.

        `rewards` None means those of the mixture `default`; a judge's group needs two images. Raises as `rank` does.
        """
        listed = [Group(*group) for group in groups]
        fields = {
            "groups": [
                {"prompt": group.prompt, "num_images": len(group.images), "metadata": group.metadata}
                for group in listed
            ],
            "rewards": list(rewards) if rewards is not None else None,
            "details": details,
            "all_pairs": all_pairs,
            "request_id": request_id,
        }
        return await self._perform(SCORE, fields, [image for group in listed for image in group.images])

    async def compare(
        self,
        prompt: str,
        first: ImageLike,
        second: ImageLike,
        *,
        model: str | None = None,
        metadata: dict[str, Any] | None = None,
        details: bool = False,
        request_id: str | None = None,
    ) -> CompareResponse:
        """The better one of two images: `winner` is first, second or tie.

        `model` names a reward, pairwise or pointwise, or a mixture; None is the mixture `default`. Raises as `rank`.
        """
        fields = {
            "prompt": prompt,
            "model": model,
            "metadata": metadata,
            "details": details,
            "request_id": request_id,
        }
        return await self._perform(COMPARE, fields, [first, second])

    async def rerank(
        self,
        query: str,
        documents: Images,
        *,
        model: str | None = None,
        top_n: int | None = None,
        metadata: dict[str, Any] | None = None,
        request_id: str | None = None,
    ) -> RerankResponse:
        """Images sorted for a query, best first; `model` as for `compare`."""
        fields = {"query": query, "model": model, "top_n": top_n, "metadata": metadata, "request_id": request_id}
        return await self._perform(RERANK, fields, documents)

    async def models(self) -> list[ModelInfo]:
        """The service's rewards and mixtures."""
        return await self._call(self._transport.models)

    async def readiness(self) -> Readiness:
        """Whether each reward can score just now, and if not why; really scores an image with each."""
        return await self._call(self._transport.ready)

    async def ready(self) -> bool:
        """Whether the service answers and every reward can score. Never raises for a service that does not."""
        try:
            return (await asyncio.wait_for(self._transport.ready(self.timeout_s), self.timeout_s)).ready
        except (RewardsError, TimeoutError):
            return False

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> AsyncRankingClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _perform(
        self, operation: Operation[OptionsT, AnswerT], fields: dict[str, Any], images: Images
    ) -> AnswerT:
        given = {name: value for name, value in fields.items() if value is not None}
        # The same request id in every attempt.
        options = parse(operation.options, {"request_id": uuid.uuid4().hex, **given})
        payloads = await _load_all(images, options.image_field)
        return await self._call(lambda timeout_s: self._transport.perform(operation, options, payloads, timeout_s))

    async def _call(self, attempt: Callable[[float], Awaitable[Answer]]) -> Answer:
        """Attempts until one succeeds, fails for good, or the deadline passes.

        Where the wait before the next attempt would outlast the deadline, the last failure is raised at once.
        """
        attempts = AsyncRetrying(
            retry=retry_if_exception(may_retry),
            stop=stop_after_attempt(1 + self.retries) | stop_before_delay(self.timeout_s),
            wait=wait,
            reraise=True,
        )
        async with self._turns:
            deadline = asyncio.get_running_loop().time() + self.timeout_s

            async def within_deadline() -> Answer:
                return await attempt(max(0.001, deadline - asyncio.get_running_loop().time()))

            try:
                async with asyncio.timeout_at(deadline):
                    return await attempts(within_deadline)
            except TimeoutError as error:
                if isinstance(error, RewardsError):  # a reward's own deadline, say: it knows better what happened
                    raise
                raise RankingTimeoutError(f"{self.address} gave no answer within {self.timeout_s:g} s") from None


async def _load_all(images: Images, name: Callable[[int], str]) -> Sequence[np.ndarray | bytes]:
    """Payloads in order; files are read and PIL images converted off the event loop."""
    if isinstance(images, np.ndarray):
        for index, image in enumerate(images):
            check_array(image, field=name(index))
        return images  # type: ignore[return-value]  # iterates as its (H, W, 3) pictures
    listed = list(images)
    return await asyncio.to_thread(lambda: [load(image, field=name(i)) for i, image in enumerate(listed)])
