"""The gateway: takes requests by handle, HTTP or gRPC, asks the rewards, and answers.

One deployment serves all three; `perform` is the one path that they share. It holds no model, and everything that takes
CPU time (decoding) runs off its event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from drpo_rewards.api.contract import MAX_PLACE, ModelInfo, ModelList, Readiness, parse
from drpo_rewards.api.images import check_images
from drpo_rewards.errors import AuthenticationError, InternalError, RewardsError
from drpo_rewards.operations import COMPARE, RANK, RERANK, SCORE, AnswerT, Operation, OptionsT
from drpo_rewards.serving.config import ServiceConfig, key_is_known
from drpo_rewards.serving.gateway.admission import Admission
from drpo_rewards.serving.gateway.answers import Answers
from drpo_rewards.serving.gateway.grpc import GrpcMethods
from drpo_rewards.serving.gateway.http import build_app
from drpo_rewards.serving.gateway.interface import Allowed, Origin, Reader
from drpo_rewards.serving.gateway.memory import return_large_buffers
from drpo_rewards.serving.gateway.metrics import Metrics
from drpo_rewards.serving.gateway.reward_calls import RewardCalls

logger = logging.getLogger("ray.serve")

# Characters of an error's message. Rewards may quote what they were sent, and gRPC's trailers end at 8 kB.
MAX_MESSAGE = 500


class Gateway(GrpcMethods):
    """Methods for handles; GrpcMethods adds gRPC's, and build_app the HTTP routes."""

    # `rewards`: a handle, or the name of the application that a reward lives in by itself
    def __init__(
        self, config: dict[str, Any], key_digests: list[bytes], rewards: dict[str, DeploymentHandle | str]
    ) -> None:
        return_large_buffers()
        self.config = ServiceConfig.model_validate(config)
        self._limits = self.config.limits.for_images()
        self._key_digests = key_digests
        self._admission = Admission(self.config.limits)
        self._metrics = Metrics(serve.get_replica_context().replica_tag, self._admission)
        self._calls = RewardCalls(self.config, rewards, self._metrics)
        self._answers = Answers(self.config, self._calls)
        self._probing: asyncio.Task[Readiness] | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self)

    async def rank(self, images: Sequence[np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
        """For handles: (H, W, 3) uint8 arrays (or one of (K, H, W, 3)) and the fields of RankOptions to a response."""
        return await self._by_handle(RANK, images, options)

    async def score(self, images: Sequence[np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
        return await self._by_handle(SCORE, images, options)

    async def compare(self, images: Sequence[np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
        return await self._by_handle(COMPARE, images, options)

    async def rerank(self, images: Sequence[np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
        return await self._by_handle(RERANK, images, options)

    async def models(self) -> list[dict[str, Any]]:
        """For handles: every reward and mixture."""
        return (await self.list_models()).model_dump()["models"]

    async def ready(self) -> dict[str, Any]:
        """For handles: whether every reward can score just now."""
        return (await self.probe_rewards()).model_dump()

    async def perform(self, operation: Operation[OptionsT, AnswerT], origin: Origin, read: Reader[OptionsT]) -> AnswerT:
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
                answer: Any = await getattr(self._answers, operation.name)(options, images, timings_ms)
        except Exception as error:
            known = _known(error, request_id)
            elapsed_s = time.perf_counter() - started
            self._metrics.failed(*call, elapsed_s, stage, known)
            logger.info("%s %s %s %s: %s %.1f ms", *call, request_id, known.code, known, elapsed_s * 1e3)
            try:
                raise known.with_traceback(None) from None
            finally:
                del known  # else this frame and the error's traceback hold each other, and the request
        elapsed_s = time.perf_counter() - started
        timings_ms["total"] = elapsed_s * 1e3
        self._metrics.answered(*call, elapsed_s, len(images), timings_ms)
        logger.info("%s %s %s ok: %d images %.1f ms", *call, request_id, len(images), elapsed_s * 1e3)
        if "timings_ms" in operation.answer.model_fields:
            answer.timings_ms = {stage: round(value, 3) for stage, value in timings_ms.items()}
        return answer

    def authorize(self, origin: Origin) -> None:
        # Whoever holds a handle is inside the cluster already.
        if origin.transport != "serve" and not key_is_known(origin.key, self._key_digests):
            raise AuthenticationError("send an API key as `authorization: Bearer KEY`", request_id=origin.request_id)

    async def list_models(self) -> ModelList:
        """Every reward as its replica describes it, then every mixture of the configuration."""
        infos = await asyncio.gather(*(self._calls.describe(name) for name in self._calls.names))
        states = {info.name: info for info in infos}
        mixtures = [
            ModelInfo(
                name=name,
                kind="mixture",
                description="weighted rewards",
                weights=mixture.rewards,
                normalize=mixture.normalize,
                needs_metadata=any(states[reward].needs_metadata for reward in mixture.rewards),
                state=max(
                    (states[reward].state for reward in mixture.rewards), key=["ready", "busy", "unavailable"].index
                ),
            )
            for name, mixture in self.config.mixtures.items()
        ]
        return ModelList(models=[*infos, *mixtures])

    async def probe_rewards(self) -> Readiness:
        """Score one image with every reward. Whoever asks meanwhile shares the answer, so probes cannot pile up."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe_rewards())
        return await asyncio.shield(self._probing)

    def metrics_text(self) -> bytes:
        return self._metrics.text()

    async def _probe_rewards(self) -> Readiness:
        names = self._calls.names
        states = await asyncio.gather(*(self._calls.probe(name) for name in names))
        return Readiness(ready=all(state.ready for state in states), rewards=dict(zip(names, states, strict=True)))

    async def _by_handle(
        self, operation: Operation[Any, Any], images: Sequence[np.ndarray], options: dict[str, Any]
    ) -> dict[str, Any]:
        async def read(allowed: Allowed) -> tuple[Any, Sequence[np.ndarray]]:
            return parse(operation.options, options), images  # decoded already, in memory that is not the gateway's

        answer = await self.perform(operation, Origin("serve", uuid.uuid4().hex), read)
        return answer.model_dump()


def _known(error: Exception, request_id: str) -> RewardsError:
    """The error as it may go out: typed, with the request's id, and nothing of the inside."""
    if not isinstance(error, RewardsError):
        logger.error("request %s: unforeseen error", request_id, exc_info=error)
        error = InternalError("something unforeseen went wrong; the service's log has it")
    error.request_id = request_id
    # What it came from, and the traceback so far, hold frames that hold the images, in cycles that await the collector.
    error.__context__ = None
    error.message = _cut(error.message, MAX_MESSAGE)
    error.field = error.field and _cut(error.field, MAX_PLACE)
    return error


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
