"""The gateway's side of a call to a reward: deadlines, replicas that die, and every failure as a typed error."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from drpo_rewards.api.contract import ModelInfo, RewardReadiness, State
from drpo_rewards.api.question import GroupToScore, Question, ReplicaAnswer
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
from drpo_rewards.serving.gateway.tournaments import KindChangedError, score_by_comparing
from drpo_rewards.serving.replica.replica import RewardReplica

logger = logging.getLogger("ray.serve")

Images = Sequence[np.ndarray]

# Ranking is idempotent, so a call whose replica died is simply made again. A group that kills its replica each time
# must not do so for ever.
REPLICA_ATTEMPTS = 3

# A replica describes itself without scoring, so a reward's own deadline is not meant for that.
DESCRIBE_DEADLINE_S = 5.0


class ReplicaDiedError(Exception):
    """The replica went away during a call; only seen between the gateway's own attempts."""


class RewardCalls:
    """Asks the rewards of the service, each by its name."""

    def __init__(self, config: ServiceConfig, rewards: Mapping[str, DeploymentHandle | str], metrics: Metrics) -> None:
        self._config = config
        self._rewards = rewards
        self._callers: dict[str, Caller] = {}
        self._metrics = metrics
        self._known: dict[str, ModelInfo] = {}  # what each reward last said of itself

    async def ask(
        self, name: str, question: Question, images: Images, request_id: str, timings_ms: dict[str, float]
    ) -> ReplicaAnswer:
        """Put a question to one reward. `timings_ms` gets how long the answer and its batches took.

        What kind of reward it is, is known before any image is sent. An upgrade may change the kind: then the answer
        says so, and the question is put anew.

        Raises:
            RewardsError: the reward failed, or did not answer in time.
        """
        started = time.perf_counter()
        with self._metrics.asking(name):
            for _ in range(REPLICA_ATTEMPTS):
                if await self._is_pairwise(name):
                    answer = await self._judge(name, question, images, request_id)
                else:
                    answer = await self._call(
                        name, RewardReplica.score, images, question.groups, question.details, request_id
                    )
                if not answer.other_kind:
                    break
                self._known.pop(name, None)
            else:
                raise self._unavailable(name, f"reward {name!r} is being replaced by one of another kind")
        self._metrics.scored(name, answer)
        timings_ms[f"reward.{name}"] = (time.perf_counter() - started) * 1e3
        timings_ms[f"score.{name}"] = answer.score_ms
        if answer.error is not None:
            raise answer.error
        return answer

    async def describe(self, name: str) -> ModelInfo:
        """Say what a reward says of itself, or last said; `state` tells whether it answers now. Never raises."""
        try:
            self._known[name] = info = await self._call(name, RewardReplica.describe, deadline_s=DESCRIBE_DEADLINE_S)
            return info
        except OverloadedError:
            state: State = "busy"
        except RewardsError:
            state = "unavailable"
        return self._known.get(name, ModelInfo(name=name)).model_copy(update={"state": state})

    async def probe(self, name: str) -> RewardReadiness:
        """Have one image really scored. Never raises."""
        started = time.perf_counter()
        try:
            answer: ReplicaAnswer = await self._call(name, RewardReplica.probe)
            message = str(answer.error) if answer.error else ""
        except RewardsError as error:
            message = str(error)
        elapsed_ms = round((time.perf_counter() - started) * 1e3, 3)
        return RewardReadiness(ready=not message, message=message, milliseconds=elapsed_ms)

    async def _is_pairwise(self, name: str) -> bool:
        """Whether the reward compares two images. It is asked once, and again after an answer said otherwise."""
        if name not in self._known:
            self._known[name] = await self._call(name, RewardReplica.describe)
        return self._known[name].mode == "pairwise"

    async def _judge(self, name: str, question: Question, images: Images, request_id: str) -> ReplicaAnswer:
        """Put a question to a pairwise reward: one judgement of a pair, or tournaments whose outcome becomes scores.

        The reward's deadline holds for all rounds together.
        """
        if question.one_pair:
            (group,) = question.groups
            return await self._call(name, RewardReplica.compare, images, [(0, 1)], group, question.details, request_id)
        settings = self._config.rewards[name]
        # So that the rounds of one request never fill the queue of their reward, however many groups it has.
        turns = asyncio.Semaphore(settings.first_replicas * settings.max_ongoing)

        async def compare(own: Images, pairs: Sequence[tuple[int, int]], group: GroupToScore) -> ReplicaAnswer:
            async with turns:
                return await self._call(name, RewardReplica.compare, own, pairs, group, False, request_id)

        try:
            async with asyncio.timeout(settings.deadline_s):
                return await score_by_comparing(compare, settings.most_replicas, images, question)
        except KindChangedError as change:
            return change.answer
        except RewardsError as error:  # the reward's own timeout among them, which is also a TimeoutError
            error.reward = error.reward or name
            raise
        except TimeoutError:
            raise _too_late(name, settings.deadline_s) from None

    async def _call(
        self, name: str, method: Callable[..., Any], *arguments: Any, deadline_s: float | None = None
    ) -> Any:
        """Call a method of one of the reward's replicas within the deadline, again where the replica died.

        Args:
            name: of the reward.
            method: of RewardReplica.
            arguments: what it takes; images come first.
            deadline_s: the reward's own by default.

        Raises:
            RewardsError: any failure.
        """
        deadline_s = deadline_s or self._config.rewards[name].deadline_s
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ReplicaDiedError),
            stop=stop_after_attempt(REPLICA_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
        )
        try:
            async with asyncio.timeout(deadline_s):
                return await attempts(self._call_once, name, method, *arguments)
        except TimeoutError:
            raise _too_late(name, deadline_s) from None
        except RetryError:
            raise self._unavailable(
                name, f"reward {name!r} went away {REPLICA_ATTEMPTS} times while it scored this group"
            ) from None

    async def _call_once(self, name: str, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            caller = await self._caller(name)
            return await caller.call(method.__name__, *arguments)
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
            raise self._unavailable(name, f"reward {name!r} is not deployed just now") from None
        except RayError as error:
            logger.warning("reward %s: a replica went away (%s)", name, type(error).__name__)
            raise ReplicaDiedError from None

    async def _caller(self, name: str) -> Caller:
        """The way to a reward. A reward with an application of its own is looked up when it is first asked."""
        if name not in self._callers:
            found = self._rewards[name]
            handle = await asyncio.to_thread(serve.get_app_handle, found) if isinstance(found, str) else found
            self._callers[name] = Caller(handle)
        return self._callers[name]

    def _unavailable(self, name: str, message: str) -> RewardUnavailableError:
        return RewardUnavailableError(message, reward=name, retry_after_s=self._config.limits.retry_after_s)


def _too_late(name: str, deadline_s: float) -> RewardTimeoutError:
    return RewardTimeoutError(f"reward {name!r} gave no answer within its deadline of {deadline_s:g} s", reward=name)
