"""The gateway: one path for every call, whatever its transport and its operation.

It holds no model. Work that takes CPU time, such as decoding, runs in threads. `http`, `grpc` and `deployment` turn
each request into a call of `Gateway.perform`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from drpo_rewards.api.contract import MAX_FIELD, ModelInfo, ModelList, Readiness
from drpo_rewards.api.images import check_images
from drpo_rewards.api.keys import key_is_known
from drpo_rewards.api.metadata import combine_schemas
from drpo_rewards.cluster.handles import SharedImages
from drpo_rewards.errors import UNEXPECTED, AuthenticationError, InternalError, RewardsError
from drpo_rewards.operations.base import Mixture, Operation, OptionsT, ResponseT, ServedRewards
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.admission import Admission
from drpo_rewards.serving.gateway.call import Origin, Reader
from drpo_rewards.serving.gateway.decoding import Decoders
from drpo_rewards.serving.gateway.metrics import Metrics
from drpo_rewards.serving.gateway.reward_calls import RewardCalls
from drpo_rewards.serving.gateway.tasks import run_together

logger = logging.getLogger("ray.serve")

# Characters of an error's message. A reward may quote the request in it, and gRPC's trailers may have only 8 kB.
MAX_MESSAGE = 500


class Gateway:
    """Performs operations.

    Args:
        config: the config of the service.
        key_digests: SHA-256 of each accepted API key; empty if no key is needed.
        rewards: by name, each reward's handle, or the name of the Serve application of a reward with `own_app`.
        name: the name of this gateway in metrics.
    """

    def __init__(
        self, config: ServiceConfig, key_digests: list[bytes], rewards: Mapping[str, DeploymentHandle | str], name: str
    ) -> None:
        self.config = config
        self._limits = config.limits.for_images()
        self._key_digests = key_digests
        self._admission = Admission(config.limits)
        longest_s = max(reward.deadline_s for reward in config.rewards.values())
        self.decoders = Decoders(longest_s, config.limits.retry_after_s)
        self._metrics = Metrics(name, self._admission)
        self._rewards = RewardCalls(config, rewards, self._metrics)
        mixtures = {name: Mixture(mixture.rewards, mixture.normalize) for name, mixture in config.mixtures.items()}
        self._served = ServedRewards(list(rewards), mixtures)
        self._probing: asyncio.Task[Readiness] | None = None

    async def perform(
        self, operation: Operation[OptionsT, ResponseT], origin: Origin, read: Reader[OptionsT]
    ) -> ResponseT:
        """Perform one call, from checking its key to its response.

        Raises:
            RewardsError: any failure, with the request's id.
        """
        started = time.perf_counter()
        stage, request_id, timings_ms = "admit", origin.request_id, {}
        call = (operation.name, origin.transport)
        try:
            self.authorize(origin)
            async with self._admission.turn(origin.body_bytes) as allowance:
                stage, began = "decode", time.perf_counter()
                options, images = await read(allowance)
                request_id = options.request_id or request_id
                options = options.model_copy(update={"request_id": request_id})
                check_images(images, options, self._limits)
                timings_ms["decode"] = (time.perf_counter() - began) * 1e3
                stage = "answer"
                question = operation.question(options, len(images), self._served)
                await self._rewards.check_metadata(question)
                if len(question.rewards) > 1 and not isinstance(images, SharedImages):
                    images = SharedImages(images)
                answers = await run_together(
                    self._rewards.ask(name, question, images, request_id, timings_ms, allowance.decoding_s)
                    for name in question.rewards
                )
                by_reward = dict(zip(question.rewards, answers, strict=True))
                response = operation.answer(options, question, by_reward, self._served)
        except Exception as error:
            outgoing = _prepare_error(error, request_id)
            elapsed_s = time.perf_counter() - started
            self._metrics.count_failure(*call, elapsed_s, stage, outgoing)
            logger.info("%s %s %s %s: %s %.1f ms", *call, request_id, outgoing.code, outgoing, elapsed_s * 1e3)
            try:
                raise outgoing.with_traceback(None) from None
            finally:
                del outgoing  # otherwise the error's traceback and this frame form a cycle that keeps the request alive
        elapsed_s = time.perf_counter() - started
        timings_ms["total"] = elapsed_s * 1e3
        self._metrics.count_success(*call, elapsed_s, len(images), timings_ms)
        logger.info("%s %s %s ok: %d images %.1f ms", *call, request_id, len(images), elapsed_s * 1e3)
        if "timings_ms" in operation.response.model_fields:
            rounded = {stage: round(value, 3) for stage, value in timings_ms.items()}
            response = response.model_copy(update={"timings_ms": rounded})
        return response

    def authorize(self, origin: Origin) -> None:
        """Check the API key. A call by handle needs none, because its caller is inside the cluster already.

        Raises:
            AuthenticationError: the key is missing or wrong.
        """
        if origin.transport != "serve" and not key_is_known(origin.key, self._key_digests):
            raise AuthenticationError("send an API key as `authorization: Bearer KEY`", request_id=origin.request_id)

    @property
    def needs_key(self) -> bool:
        """Whether callers need an API key."""
        return bool(self._key_digests)

    async def describe_model(self, name: str) -> ModelInfo:
        """Describe one reward or mixture.

        Raises:
            UnknownRewardError: there is none of this name.
        """
        self._served.find_model(name)
        return next(info for info in (await self.list_models()).models if info.name == name)

    async def list_models(self) -> ModelList:
        """List every reward as its replica describes it, then every mixture of the configuration."""
        infos = await asyncio.gather(*(self._rewards.describe(name) for name in self._served.names))
        known = {info.name: info for info in infos}
        mixtures = [
            ModelInfo(
                name=name,
                kind="mixture",
                description="weighted rewards",
                weights=mixture.rewards,
                normalize=mixture.normalize,
                **_combine_needs([known[reward] for reward in mixture.rewards]),
                state=max(
                    (known[reward].state for reward in mixture.rewards), key=["ready", "busy", "unavailable"].index
                ),
            )
            for name, mixture in self.config.mixtures.items()
        ]
        return ModelList(models=[*infos, *mixtures])

    async def probe_rewards(self) -> Readiness:
        """Score one image with every reward. Calls during a probe share its result, so probes cannot pile up."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe_rewards())
        return await asyncio.shield(self._probing)

    def metrics_text(self) -> bytes:
        """Return the counters in Prometheus' text format."""
        return self._metrics.text()

    async def _probe_rewards(self) -> Readiness:
        names = self._served.names
        states = await asyncio.gather(*(self._rewards.probe(name) for name in names))
        return Readiness(ready=all(state.ready for state in states), rewards=dict(zip(names, states, strict=True)))


def _combine_needs(rewards: Sequence[ModelInfo]) -> dict[str, Any]:
    """Return what a mixture needs of a request: what each of its rewards needs."""
    return {
        "needs_metadata": any(info.needs_metadata for info in rewards),
        "metadata_schema": combine_schemas({info.name: info.metadata_schema for info in rewards}),
        "needs_in_prompt": "; ".join(
            f"{info.name}: {info.needs_in_prompt}" for info in rewards if info.needs_in_prompt
        ),
    }


def _prepare_error(error: Exception, request_id: str) -> RewardsError:
    """Make the error that the caller gets: typed, with the request's id, without internal details."""
    if not isinstance(error, RewardsError):
        logger.error("request %s: unexpected error", request_id, exc_info=error)
        error = InternalError(UNEXPECTED)
    error.request_id = request_id
    # Its context refers to frames that refer to the images, in cycles that only the garbage collector ends.
    error.__context__ = None
    error.message = _tidy(error.message, MAX_MESSAGE)
    error.field = error.field and _tidy(error.field, MAX_FIELD)
    return error


def _tidy(text: str, max_length: int) -> str:
    """Return a text that can be sent: not too long, and without half letters, which a reward may write."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
