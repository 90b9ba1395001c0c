"""The client of a ranking service, for asyncio.

    async with AsyncRankingClient("http://127.0.0.1:8000") as client:
        ranking = await client.rank("a red circle", ["a.png", "b.png"])
    best = ranking.order[0]

Ranking is idempotent, so a call that failed for a temporary reason (overload, a replica that died) is repeated, with
jitter and not before `Retry-After`. A request that is not valid raises at once. Errors are those of
`drpo_rewards.errors`, over every transport.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_before_delay

from drpo_rewards.api.contract import ModelInfo, Normalize, PairOptions, Readiness, parse
from drpo_rewards.api.images import ImageLike, Images
from drpo_rewards.client.payloads import as_list, load_all
from drpo_rewards.client.retries import may_retry, wait
from drpo_rewards.client.transports import open_transport
from drpo_rewards.errors import (
    ConfigError,
    InternalError,
    InvalidRequestError,
    RankingTimeoutError,
    RewardsError,
    ServiceUnavailableError,
)
from drpo_rewards.operations import COMPARE, RANK, RERANK, SCORE
from drpo_rewards.operations.base import Operation, OptionsT, ResponseT
from drpo_rewards.operations.compare import CompareResponse
from drpo_rewards.operations.rank import RankResponse
from drpo_rewards.operations.rerank_contract import RerankResponse
from drpo_rewards.operations.score import ScoreResponse

ResultT = TypeVar("ResultT")


class Group(NamedTuple):
    """One group of a `score` call.

    Attributes:
        prompt: what the images were made from.
        images: one or more, in any of the forms that `AsyncRankingClient.rank` takes.
        metadata: what a reward needs beyond the prompt, e.g. a GenEval specification.

    Example:
        Group("a red circle", ["a.png", "b.png"], {"include": [{"class": "circle", "color": "red"}]})
    """

    prompt: str
    images: Images
    metadata: dict[str, Any] | None = None


class AsyncRankingClient:
    """A client of a ranking service. It belongs to the event loop of its first call. Close it, or use `async with`.

    Args:
        address: "http://host:port", "grpc://host:port", or "serve://app" inside the service's Ray cluster.
        api_key: the key, if the service requires one.
        timeout_s: seconds for a whole call, with all attempts and waits.
        max_in_flight: calls in progress at the same time. Further calls wait, which does not count towards
            `timeout_s`.
        retries: how often a call that failed for a temporary reason is repeated.
        use_proxies: go through the proxies that the environment names. By default every call goes straight to the
            service.

    Raises:
        ConfigError: the address or the key cannot be used.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_in_flight: int = 8,
        retries: int = 3,
        use_proxies: bool = False,
    ) -> None:
        if not timeout_s > 0 or max_in_flight < 1 or retries < 0:
            raise ConfigError(
                f"timeout_s must be above 0, max_in_flight at least 1 and retries at least 0, not {timeout_s}, "
                f"{max_in_flight} and {retries}"
            )
        self.address = address
        self.timeout_s = timeout_s
        self.retries = retries
        self._transport = open_transport(address, api_key, use_proxies)
        self._turns = asyncio.Semaphore(max_in_flight)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._calls: set[asyncio.Future[Any]] = set()

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

        Args:
            prompt: what the images were made from.
            images: a (K, H, W, 3) uint8 array, or a list of K images, each an (H, W, 3) array, a PIL image, a file's
                bytes or a path.
            rewards: weights by reward, e.g. {"pickscore": 1.0, "aesthetic": 0.5}, instead of a mixture.
            mixture: a configured mixture; None means `default`.
            normalize: how each reward's scores are normalised before they are added; None takes the
                mixture's setting.
            metadata: what a reward needs beyond the prompt, e.g. a GenEval specification.
            pairs: how many (winner, loser) pairs to draw, and how.
            details: also return what each reward reports about each image.
            all_pairs: let a judge compare every pair of images, not only O(K log K) pairs.
            request_id: names the call in the service's logs; a new one by default.

        Raises:
            RewardsError: the request is wrong, a reward failed, or the service cannot be reached.
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
        return await self.call(RANK, fields, images)

    async def score(
        self,
        groups: Sequence[Group | tuple[Any, ...]],
        *,
        rewards: Sequence[str] | None = None,
        details: bool = False,
        all_pairs: bool = False,
        request_id: str | None = None,
    ) -> ScoreResponse:
        """Score groups. The scores are neither combined nor put in order.

        Args:
            groups: each a `Group`, or a tuple of its fields. One image is enough, but a judge needs two.
            rewards: names of rewards; None takes those of the mixture `default`.
            details, all_pairs, request_id: as for `rank`.

        Raises:
            RewardsError: as `rank` does.
        """
        try:
            given = [Group(*group) for group in groups]
        except TypeError as error:
            raise InvalidRequestError(f"each group is a Group or (prompt, images[, metadata]): {error}") from None
        images = [as_list(group.images, f"the images of groups[{index}]") for index, group in enumerate(given)]
        fields = {
            "groups": [
                {"prompt": group.prompt, "num_images": len(own), "metadata": group.metadata}
                for group, own in zip(given, images, strict=True)
            ],
            "rewards": list(rewards) if rewards is not None else None,
            "details": details,
            "all_pairs": all_pairs,
            "request_id": request_id,
        }
        return await self.call(SCORE, fields, [image for own in images for image in own])

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
        """Compare two images. The response's `winner` is "first", "second" or "tie".

        Args:
            prompt: what both images were made from.
            first, second: the two images, each in any of the forms that `rank` takes.
            model: a reward, pairwise or pointwise, or a mixture; None takes the mixture `default`.
            metadata, details, request_id: as for `rank`.

        Raises:
            RewardsError: as `rank` does.
        """
        fields = {
            "prompt": prompt,
            "model": model,
            "metadata": metadata,
            "details": details,
            "request_id": request_id,
        }
        return await self.call(COMPARE, fields, [first, second])

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
        """Sort images for a query, best first.

        Args:
            query: what the images are sorted for.
            documents: the images, in any of the forms that `rank` takes.
            model: as for `compare`.
            top_n: return only this many images, the best ones; None returns all.
            metadata, request_id: as for `rank`.

        Raises:
            RewardsError: as `rank` does.
        """
        fields = {"query": query, "model": model, "top_n": top_n, "metadata": metadata, "request_id": request_id}
        return await self.call(RERANK, fields, documents)

    async def models(self) -> list[ModelInfo]:
        """List the service's rewards and mixtures."""
        return await self._attempt_until_deadline(self._transport.models)

    async def readiness(self) -> Readiness:
        """Let every reward score an image now, and report which of them could not, and why."""
        return await self._attempt_until_deadline(self._transport.ready)

    async def ready(self) -> bool:
        """Return whether the service answers and every reward can score now. Never raises, even without a service."""
        try:
            self._check_open()
            return (await asyncio.wait_for(self._transport.ready(self.timeout_s), self.timeout_s)).ready
        except (RewardsError, TimeoutError):
            return False

    async def close(self) -> None:
        """Close the connections. Calls in progress and later ones fail with ServiceUnavailableError."""
        self._closed = True
        for call in self._calls:
            call.cancel()
        await self._transport.close()

    async def __aenter__(self) -> AsyncRankingClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def call(
        self, operation: Operation[OptionsT, ResponseT], fields: dict[str, Any], images: Images
    ) -> ResponseT:
        """Perform any operation of `drpo_rewards.operations`.

        Args:
            operation: for example `RANK`.
            fields: the fields of its options; a field that is None is left out.
            images: all images of the request in order.
        """
        # All attempts have the same request id.
        present = {name: value for name, value in fields.items() if value is not None}
        options = parse(operation.options, {"request_id": uuid.uuid4().hex, **present})
        payloads = await load_all(images, options.image_field)
        return await self._attempt_until_deadline(
            lambda timeout_s: self._transport.perform(operation, options, payloads, timeout_s)
        )

    async def _attempt_until_deadline(self, attempt: Callable[[float], Awaitable[ResultT]]) -> ResultT:
        """Repeat an attempt until it succeeds, fails permanently, or the deadline passes.

        If the wait before the next attempt would pass the deadline, the last failure is raised at once.
        """
        self._check_open()
        attempts = AsyncRetrying(
            retry=retry_if_exception(may_retry),
            stop=stop_after_attempt(1 + self.retries) | stop_before_delay(self.timeout_s),
            wait=wait,
            reraise=True,
        )
        async with self._turns:
            deadline = asyncio.get_running_loop().time() + self.timeout_s

            async def within_deadline() -> ResultT:
                return await attempt(max(0.001, deadline - asyncio.get_running_loop().time()))

            # `close` cancels this, and not the caller's task.
            call: asyncio.Future[ResultT] = asyncio.ensure_future(attempts(within_deadline))
            self._calls.add(call)
            try:
                async with asyncio.timeout_at(deadline):
                    return await call
            except TimeoutError as error:
                if isinstance(error, RewardsError):  # e.g. a reward's deadline, which says more
                    raise
                raise RankingTimeoutError(f"{self.address} gave no answer within {self.timeout_s:g} s") from None
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, RewardsError) or _is_cancelled():
                    raise
                if self._closed:
                    raise ServiceUnavailableError("this client was closed during the call") from None
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise InternalError(f"the call of {self.address} failed: {type(error).__name__}: {error}") from error
            finally:
                self._calls.discard(call)

    def _check_open(self) -> None:
        if self._closed:
            raise ServiceUnavailableError("this client is closed")
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise ConfigError(
                "this client belongs to another event loop, that of its first call; open one in each loop"
            )


def _is_cancelled() -> bool:
    """Return whether the caller's own task is being cancelled, which must never be turned into another error."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
