"""The gateway: takes a group by handle, HTTP or gRPC, asks the rewards, and answers the ranking.

One deployment serves all three; `rank_group` is the one path that they share. It holds no model, and everything that
takes CPU time (decoding) runs off its event loop.
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
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from drpo_rewards.contract import (
    ModelInfo,
    ModelList,
    RankOptions,
    RankResponse,
    Readiness,
    RewardReadiness,
    RewardResult,
    parse,
)
from drpo_rewards.errors import (
    OverloadedError,
    RewardError,
    RewardsError,
    RewardTimeoutError,
    RewardUnavailableError,
    UnknownRewardError,
)
from drpo_rewards.handles import Caller
from drpo_rewards.images import check_group
from drpo_rewards.mixture import combine
from drpo_rewards.pairs import draw_pairs
from drpo_rewards.serving.config import DEFAULT_MIXTURE, MixtureConfig, ServiceConfig
from drpo_rewards.serving.grpc import GrpcMethods
from drpo_rewards.serving.http import build_app
from drpo_rewards.serving.reward import GroupScores

logger = logging.getLogger("ray.serve")

# Ranking is idempotent, so a call whose replica died is simply made again. A group that kills its replica each time
# must not do so for ever.
REPLICA_ATTEMPTS = 3

# A replica describes itself without scoring, so a reward's own deadline is not meant for that.
DESCRIBE_DEADLINE_S = 30.0


class ReplicaDiedError(Exception):
    """The replica went away during a call; only seen between the gateway's own attempts."""


class Gateway(GrpcMethods):
    """`rank`, `models` and `ready` for handles; GrpcMethods adds gRPC's, and build_app the HTTP routes."""

    def __init__(self, config: dict[str, Any], key_digests: list[bytes], rewards: dict[str, DeploymentHandle]) -> None:
        self.config = ServiceConfig.model_validate(config)
        self.limits = self.config.limits.for_images()
        self.key_digests = key_digests
        self._rewards = {name: Caller(handle) for name, handle in rewards.items()}
        self._probing: asyncio.Task[Readiness] | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self)

    async def rank(self, images: Sequence[np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
        """For handles: (H, W, 3) uint8 arrays (or one of (K, H, W, 3)) and the fields of RankOptions to a response."""
        request = parse(RankOptions, options)
        return (await self.rank_group(request, images)).model_dump()

    async def models(self) -> list[dict[str, Any]]:
        """For handles: every reward and mixture."""
        return (await self.list_models()).model_dump()["models"]

    async def ready(self) -> dict[str, Any]:
        """For handles: whether every reward can score just now."""
        return (await self.probe_rewards()).model_dump()

    async def rank_group(
        self, options: RankOptions, images: Sequence[np.ndarray], timings_ms: dict[str, float] | None = None
    ) -> RankResponse:
        """Score, combine, order and pair one group. Raises a RewardsError that carries the request id."""
        started = time.perf_counter()
        request_id = options.request_id or uuid.uuid4().hex
        timings_ms = dict(timings_ms or {})
        decode_ms = sum(timings_ms.values())
        try:
            check_group(images, self.limits)
            mixture = self._mixture(options)
            answers = await self._score(mixture, options, images, timings_ms)
            signed = {name: weight * answers[name].sign for name, weight in mixture.rewards.items()}
            normalize = options.normalize or mixture.normalize
            ranking = combine({name: answer.scores for name, answer in answers.items()}, signed, normalize)
            drawing = options.pairs
            pairs = draw_pairs(ranking.combined, drawing.count, drawing.strategy, drawing.seed) if drawing else []
        except RewardsError as error:
            error.request_id = request_id
            raise
        timings_ms["total"] = (time.perf_counter() - started) * 1e3 + decode_ms
        return RankResponse(
            request_id=request_id,
            combined=ranking.combined,
            order=ranking.order,
            ranks=ranking.ranks,
            pairs=pairs,
            all_tied=ranking.all_tied,
            normalize=normalize,
            rewards={
                name: RewardResult(
                    scores=answer.scores,
                    weight=ranking.weights[name],
                    version=answer.version,
                    details=answer.details if options.details else None,
                )
                for name, answer in answers.items()
            },
            timings_ms={stage: round(value, 3) for stage, value in timings_ms.items()},
        )

    async def list_models(self) -> ModelList:
        """Every reward as its replica describes it, then every mixture of the configuration."""
        infos: list[ModelInfo] = await asyncio.gather(*(self._ask(name, "describe") for name in self._rewards))
        mixtures = [
            ModelInfo(
                name=name,
                kind="mixture",
                description="weighted rewards",
                weights=mixture.rewards,
                normalize=mixture.normalize,
                needs_metadata=any(info.needs_metadata for info in infos if info.name in mixture.rewards),
            )
            for name, mixture in self.config.mixtures.items()
        ]
        return ModelList(models=[*infos, *mixtures])

    async def probe_rewards(self) -> Readiness:
        """Score one image with every reward. Whoever asks meanwhile shares the answer, so probes cannot pile up."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe_rewards())
        return await asyncio.shield(self._probing)

    async def _probe_rewards(self) -> Readiness:
        states = await asyncio.gather(*(self._probe(name) for name in self._rewards))
        return Readiness(
            ready=all(state.ready for state in states), rewards=dict(zip(self._rewards, states, strict=True))
        )

    async def _probe(self, name: str) -> RewardReadiness:
        started = time.perf_counter()
        try:
            answer: GroupScores = await self._ask(name, "probe")
            message = str(answer.error) if answer.error else ""
        except RewardsError as error:
            message = str(error)
        elapsed_ms = round((time.perf_counter() - started) * 1e3, 3)
        return RewardReadiness(ready=not message, message=message, milliseconds=elapsed_ms)

    def _mixture(self, options: RankOptions) -> MixtureConfig:
        """The weights that the request names or brings."""
        if options.rewards is not None:
            mixture = MixtureConfig.model_construct(rewards=options.rewards, normalize="zscore")
        elif (name := options.mixture or DEFAULT_MIXTURE) in self.config.mixtures:
            mixture = self.config.mixtures[name]
        else:
            known = ", ".join(self.config.mixtures)
            raise UnknownRewardError(f"no mixture {name!r}; the mixtures are: {known}", field="mixture")
        for reward in mixture.rewards:
            if reward not in self._rewards:
                known = ", ".join(self._rewards)
                raise UnknownRewardError(f"no reward {reward!r}; the rewards are: {known}", field="rewards")
        return mixture

    async def _score(
        self, mixture: MixtureConfig, options: RankOptions, images: Sequence[np.ndarray], timings_ms: dict[str, float]
    ) -> dict[str, GroupScores]:
        """Every reward's scores, asked at the same time. The first failure ends the request and calls off the rest."""

        async def score_one(name: str) -> GroupScores:
            started = time.perf_counter()
            answer: GroupScores = await self._ask(
                name, "score", images, options.prompt, options.metadata, options.details
            )
            timings_ms[f"reward.{name}"] = (time.perf_counter() - started) * 1e3
            timings_ms[f"score.{name}"] = answer.score_ms
            if answer.error is not None:
                raise answer.error
            return answer

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {name: group.create_task(score_one(name)) for name in mixture.rewards}
        except* RewardsError as failures:
            raise failures.exceptions[0] from None
        return {name: task.result() for name, task in tasks.items()}

    async def _ask(self, name: str, method: str, *arguments: Any) -> Any:
        """Call one reward within its deadline, again where its replica died; every failure is a typed error."""
        deadline_s = DESCRIBE_DEADLINE_S if method == "describe" else self.config.rewards[name].deadline_s
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ReplicaDiedError),
            stop=stop_after_attempt(REPLICA_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
        )
        try:
            async with asyncio.timeout(deadline_s):
                return await attempts(self._ask_once, name, method, *arguments)
        except TimeoutError:
            raise RewardTimeoutError(
                f"reward {name!r} gave no answer within its deadline of {deadline_s:g} s", reward=name
            ) from None
        except RetryError:
            raise RewardUnavailableError(
                f"reward {name!r} went away {REPLICA_ATTEMPTS} times while it scored this group",
                reward=name,
                retry_after_s=self.config.limits.retry_after_s,
            ) from None

    async def _ask_once(self, name: str, method: str, *arguments: Any) -> Any:
        try:
            return await self._rewards[name].call(method, *arguments)
        except BackPressureError:
            raise OverloadedError(
                f"reward {name!r} has all the work it can queue",
                reward=name,
                retry_after_s=self.config.limits.retry_after_s,
            ) from None
        except RayTaskError:
            logger.exception("reward %s: its deployment failed", name)
            raise RewardError(f"reward {name!r} failed inside its deployment; see the log", reward=name) from None
        except RayServeException:
            raise RewardUnavailableError(f"reward {name!r} is not deployed just now", reward=name) from None
        except RayError as error:
            logger.warning("reward %s: a replica went away (%s)", name, type(error).__name__)
            raise ReplicaDiedError from None
