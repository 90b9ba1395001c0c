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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from drpo_rewards.api.contract import ModelInfo, Normalize, PairOptions, Readiness, parse
from drpo_rewards.api.images import ImageLike, Images
from drpo_rewards.client.attempts import Attempts
from drpo_rewards.client.batch import Batch, Payloads, make_batch, score_batch
from drpo_rewards.client.payloads import as_list, load_all
from drpo_rewards.client.transports import open_transport
from drpo_rewards.errors import InvalidRequestError, RewardsError
from drpo_rewards.operations import COMPARE, RANK, RERANK, SCORE
from drpo_rewards.operations.base import Operation, OptionsT, ResponseT
from drpo_rewards.operations.compare import CompareResponse
from drpo_rewards.operations.rank import RankResponse
from drpo_rewards.operations.rerank_contract import RerankResponse
from drpo_rewards.operations.score import ScoreResponse


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
        retries: how often a call that failed for a temporary reason is repeated. Unless it is 0, a call also waits
            up to 30 s for a service that answered before and cannot be reached now.
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
        self.address = address
        self._attempts = Attempts(address, timeout_s, max_in_flight, retries)
        self._transport = open_transport(address, api_key, use_proxies)

    @property
    def timeout_s(self) -> float:
        """Seconds for a whole call, with all attempts and waits."""
        return self._attempts.timeout_s

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None:
        self._attempts.timeout_s = seconds

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
            images: a uint8 array (K, H, W, 3), a tensor of floats from 0 to 1 (K, 3, H, W), or a list of K images, each
                an array or a tensor without the first axis, a PIL image, a file's bytes or a path.
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
        rewards: str | Sequence[str] | None = None,
        details: bool = False,
        all_pairs: bool = False,
        request_id: str | None = None,
    ) -> ScoreResponse:
        """Score groups. The scores are neither combined nor put in order.

        Args:
            groups: each a `Group`, or a tuple of its fields. One image is enough, but a judge needs two.
            rewards: names of rewards, or one name; None takes those of the mixture `default`.
            details, all_pairs, request_id: as for `rank`.

        Raises:
            RewardsError: as `rank` does.
        """
        try:
            given = [Group(*group) for group in groups]
        except TypeError as error:
            raise InvalidRequestError(f"each group is a Group or (prompt, images[, metadata]): {error}") from None
        images = [as_list(group.images, f"groups[{index}].images") for index, group in enumerate(given)]
        fields = {
            "groups": [
                {"prompt": group.prompt, "num_images": len(own), "metadata": group.metadata}
                for group, own in zip(given, images, strict=True)
            ],
            "rewards": _list_names(rewards),
            "details": details,
            "all_pairs": all_pairs,
            "request_id": request_id,
        }
        return await self.call(SCORE, fields, [image for own in images for image in own])

    async def score_batch(
        self,
        images: Images,
        prompts: str | Sequence[str],
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        *,
        rewards: str | Sequence[str] | None = None,
        metrics: bool = False,
    ) -> dict[str, np.ndarray]:
        """Score any number of images, each with its own prompt.

        The batch travels in as many requests as the service's limits need, `max_in_flight` at the same time, and
        `timeout_s` holds for each of them. If one of them fails, the batch does.

        Args:
            images: N images, in any of the forms that `rank` takes.
            prompts: N prompts; one text is that of all images. Neighbours with the same prompt travel as one group.
            metadata: for each image what a reward needs beyond the prompt, or None; one dict is that of all images.
            rewards: as for `score`.
            metrics: also return what the rewards declare as metrics, under `REWARD/METRIC`.

        Returns:
            The scores of each reward, (N,) float64, in the order of the images.

        Raises:
            RewardsError: as `rank` does. Its `field` names the image, prompt or metadata by its index in the batch.
        """
        return await self.score_prepared(
            await asyncio.to_thread(make_batch, images, prompts, metadata), rewards=rewards, metrics=metrics
        )

    async def score_prepared(
        self, batch: Batch, *, rewards: str | Sequence[str] | None = None, metrics: bool = False
    ) -> dict[str, np.ndarray]:
        """Score a batch that `make_batch` has prepared. See `score_batch`."""

        async def send(groups: list[dict[str, Any]], payloads: Payloads) -> ScoreResponse:
            fields = {"groups": groups, "rewards": _list_names(rewards), "details": metrics}
            return await self._perform(SCORE, _options(SCORE, fields), payloads)

        return await score_batch(batch, send)

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
        return await self._attempts.run(self._transport.models)

    async def readiness(self) -> Readiness:
        """Let every reward score an image now, and report which of them could not, and why."""
        return await self._attempts.run(self._transport.ready)

    async def ready(self) -> bool:
        """Return whether the service answers and every reward can score now. Never raises, even without a service."""
        try:
            self._attempts.check_open()
            return (await asyncio.wait_for(self._transport.ready(self.timeout_s), self.timeout_s)).ready
        except (TimeoutError, RewardsError):
            return False

    async def close(self) -> None:
        """Close the connections. Calls in progress and later ones fail with ServiceUnavailableError."""
        self._attempts.close()
        if not self._attempts.loop_has_ended:  # else nobody could wait; its connections end when it is collected
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
        options = _options(operation, fields)
        payloads = await asyncio.to_thread(load_all, images, options.image_field)  # reads files, converts pixels
        return await self._perform(operation, options, payloads)

    async def _perform(
        self, operation: Operation[OptionsT, ResponseT], options: OptionsT, payloads: Payloads
    ) -> ResponseT:
        return await self._attempts.run(
            lambda timeout_s: self._transport.perform(operation, options, payloads, timeout_s)
        )


def _options(operation: Operation[OptionsT, ResponseT], fields: dict[str, Any]) -> OptionsT:
    """Make the options of a call. All its attempts have the same request id."""
    present = {name: value for name, value in fields.items() if value is not None}
    return parse(operation.options, {"request_id": uuid.uuid4().hex, **present})


def _list_names(rewards: str | Sequence[str] | None) -> list[str] | None:
    if isinstance(rewards, Mapping):
        raise InvalidRequestError(
            "`rewards` must be names: scores are not added, so they have no weights", field="rewards"
        )
    return [rewards] if isinstance(rewards, str) else None if rewards is None else list(rewards)
