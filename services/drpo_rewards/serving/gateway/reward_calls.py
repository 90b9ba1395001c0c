"""The gateway's side of a call to a reward: deadlines, replicas that die, and every failure as a typed error."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from drpo_rewards.api.contract import ModelInfo, RewardReadiness, State
from drpo_rewards.cluster.handles import Caller
from drpo_rewards.errors import (
    OverloadedError,
    RewardError,
    RewardsError,
    RewardTimeoutError,
    RewardUnavailableError,
)
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.metrics import Metrics
from drpo_rewards.serving.gateway.together import together
from drpo_rewards.serving.gateway.tournaments import score_by_comparing
from drpo_rewards.serving.replica.replica import Answer, GroupAsk

logger = logging.getLogger("ray.serve")

# Ranking is idempotent, so a call whose replica died is simply made again. A group that kills its replica each time
# must not do so for ever.
REPLICA_ATTEMPTS = 3

# A replica describes itself without scoring, so a reward's own deadline is not meant for that.
DESCRIBE_DEADLINE_S = 5.0


class ReplicaDiedError(Exception):
    """The replica went away during a call; only seen between the gateway's own attempts."""


class RewardCalls:
    """Every reward of the service, by name."""

    def __init__(self, config: ServiceConfig, rewards: Mapping[str, DeploymentHandle | str], metrics: Metrics) -> None:
        self._config = config
        self._rewards = rewards
        self._callers: dict[str, Caller] = {}
        self._metrics = metrics
        self._known: dict[str, ModelInfo] = {}

    @property
    def names(self) -> list[str]:
        return list(self._rewards)

    async def score(
        self,
        names: Sequence[str],
        images: Sequence[np.ndarray],
        groups: Sequence[GroupAsk],
        details: bool,
        request_id: str,
        timings_ms: dict[str, float],
        all_pairs: bool = False,
    ) -> dict[str, Answer]:
        """Each reward's scores, all asked at the same time. The first failure ends it and calls off the rest."""

        async def scored(name: str) -> Answer:
            arguments = (images, groups, details, request_id)
            answer = await self._ask_pointwise(name, *arguments)
            return answer or await self._ask_in_tournaments(name, images, groups, request_id, all_pairs)

        answers = await together(self._timed(name, timings_ms, partial(scored, name)) for name in names)
        return dict(zip(names, answers, strict=True))

    async def compare(
        self,
        name: str,
        images: Sequence[np.ndarray],
        group: GroupAsk,
        details: bool,
        request_id: str,
        timings_ms: dict[str, float],
    ) -> Answer:
        """One reward's judgement of two images; its scores of both, where it is a pointwise one."""

        async def compared() -> Answer:
            answer = await self._ask_pointwise(name, images, [group], details, request_id)
            return answer or await self._ask(name, "compare", images, [(0, 1)], group, details, request_id)

        return await self._timed(name, timings_ms, compared)

    async def describe(self, name: str) -> ModelInfo:
        """What a reward says of itself, or said when last it answered; `state` says which. Never raises."""
        try:
            self._known[name] = info = await self._ask(name, "describe")
            return info
        except OverloadedError:
            state: State = "busy"
        except RewardsError:
            state = "unavailable"
        return self._known.get(name, ModelInfo(name=name)).model_copy(update={"state": state})

    async def probe(self, name: str) -> RewardReadiness:
        """Really have one image scored. Never raises."""
        started = time.perf_counter()
        try:
            answer: Answer = await self._ask(name, "probe")
            message = str(answer.error) if answer.error else ""
        except RewardsError as error:
            message = str(error)
        elapsed_ms = round((time.perf_counter() - started) * 1e3, 3)
        return RewardReadiness(ready=not message, message=message, milliseconds=elapsed_ms)

    async def _timed(
        self, name: str, timings_ms: dict[str, float], ask: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        started = time.perf_counter()
        with self._metrics.asking(name):
            answer = await ask()
        self._metrics.scored(name, answer)
        timings_ms[f"reward.{name}"] = (time.perf_counter() - started) * 1e3
        timings_ms[f"score.{name}"] = answer.score_ms
        if answer.error is not None:
            raise answer.error
        return answer

    async def _ask_pointwise(self, name: str, *arguments: Any) -> Answer | None:
        """A pointwise reward's scores; None from a pairwise one, which says so at once.

        Asked each time, and not remembered: a reward may be upgraded to one of the other kind.
        """
        answer: Answer = await self._ask(name, "score", *arguments)
        return None if answer.pairwise else answer

    async def _ask_in_tournaments(
        self, name: str, images: Sequence[np.ndarray], groups: Sequence[GroupAsk], request_id: str, all_pairs: bool
    ) -> Answer:
        """A pairwise reward's scores. Its deadline holds for all rounds together."""
        settings = self._config.rewards[name]
        # So that the rounds of one request never fill the queue of their reward, however many groups it has.
        turns = asyncio.Semaphore(settings.first_replicas * settings.max_ongoing)

        async def compare(own: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]], group: GroupAsk) -> Answer:
            async with turns:
                return await self._ask(name, "compare", own, pairs, group, False, request_id)

        try:
            async with asyncio.timeout(settings.deadline_s):
                return await score_by_comparing(compare, settings.most_replicas, images, groups, all_pairs)
        except RewardsError as error:  # the reward's own timeout among them, which is also a TimeoutError
            error.reward = error.reward or name
            raise
        except TimeoutError:
            raise _too_late(name, settings.deadline_s) from None

    async def _ask(self, name: str, method: str, *arguments: Any) -> Any:
        """Call one reward within its deadline, again where its replica died; every failure is a typed error."""
        deadline_s = DESCRIBE_DEADLINE_S if method == "describe" else self._config.rewards[name].deadline_s
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ReplicaDiedError),
            stop=stop_after_attempt(REPLICA_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
        )
        try:
            async with asyncio.timeout(deadline_s):
                return await attempts(self._ask_once, name, method, *arguments)
        except TimeoutError:
            raise _too_late(name, deadline_s) from None
        except RetryError:
            raise RewardUnavailableError(
                f"reward {name!r} went away {REPLICA_ATTEMPTS} times while it scored this group",
                reward=name,
                retry_after_s=self._config.limits.retry_after_s,
            ) from None

    async def _caller(self, name: str) -> Caller:
        """The way to a reward. One with an application of its own is looked up when it is first asked."""
        if name not in self._callers:
            found = self._rewards[name]
            handle = await asyncio.to_thread(serve.get_app_handle, found) if isinstance(found, str) else found
            self._callers[name] = Caller(handle)
        return self._callers[name]

    async def _ask_once(self, name: str, method: str, *arguments: Any) -> Any:
        try:
            return await (await self._caller(name)).call(method, *arguments)
        except BackPressureError:
            raise OverloadedError(
                f"reward {name!r} has all the work it can queue",
                reward=name,
                retry_after_s=self._config.limits.retry_after_s,
            ) from None
        except RayTaskError:
            logger.exception("reward %s: its deployment failed", name)
            raise RewardError(f"reward {name!r} failed inside its deployment; see the log", reward=name) from None
        except RayServeException:
            raise RewardUnavailableError(
                f"reward {name!r} is not deployed just now",
                reward=name,
                retry_after_s=self._config.limits.retry_after_s,
            ) from None
        except RayError as error:
            logger.warning("reward %s: a replica went away (%s)", name, type(error).__name__)
            raise ReplicaDiedError from None


def _too_late(name: str, deadline_s: float) -> RewardTimeoutError:
    return RewardTimeoutError(f"reward {name!r} gave no answer within its deadline of {deadline_s:g} s", reward=name)
