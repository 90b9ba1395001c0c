"""The gateway's calls to rewards: deadlines, repeated attempts when a replica dies, and failures as typed errors."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import ObjectLostError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from drpo_rewards.api.contract import ModelInfo, RewardReadiness, State
from drpo_rewards.api.metadata import check_keys
from drpo_rewards.api.question import GroupToScore, Question, ReplicaAnswer
from drpo_rewards.cluster.handles import Caller
from drpo_rewards.errors import (
    LOGS,
    InvalidRequestError,
    OverloadedError,
    RewardError,
    RewardsError,
    RewardTimeoutError,
    RewardUnavailableError,
    ServiceUnavailableError,
)
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.metrics import Metrics
from drpo_rewards.serving.gateway.tournaments import KindChangedError, score_by_comparing
from drpo_rewards.serving.replica.replica import RewardReplica

logger = logging.getLogger("ray.serve")

Images = Sequence[np.ndarray]

# Ranking is idempotent, so a call whose replica died is repeated, but not forever: the group may be what kills it. Last
# attempts are made one after the other, so that such a group does not take others with it each time.
REPLICA_ATTEMPTS = 3

# For a description, which needs no scoring, a reward's own deadline would be too long.
DESCRIBE_DEADLINE_S = 5.0

# The longest pause before a question is asked again because the reward is of another kind now.
KIND_PAUSE_S = 0.2


class ReplicaDiedError(Exception):
    """The replica died during a call. Never leaves this file."""


class RewardCalls:
    """Asks the rewards of the service, each by its name."""

    def __init__(self, config: ServiceConfig, rewards: Mapping[str, DeploymentHandle | str], metrics: Metrics) -> None:
        self._config = config
        self._rewards = rewards
        self._callers: dict[str, Caller] = {}
        self._metrics = metrics
        self._known: dict[str, ModelInfo] = {}  # the last description of each reward
        self._last_attempts = {name: asyncio.Lock() for name in rewards}

    async def check_metadata(self, question: Question) -> None:
        """Check that the rewards of a question read each key of its metadata.

        Raises:
            InvalidRequestError: none of them reads a key.
        """
        if not any(group.metadata for group in question.groups):
            return
        known = {name: self._known[name] for name in question.rewards if name in self._known}
        if len(known) == len(question.rewards) and _find_unread(question, known) is None:
            return
        # Only now are the rewards asked, because an upgrade may have changed what they read.
        infos = await asyncio.gather(*map(self.describe, question.rewards))
        error = _find_unread(question, {info.name: info for info in infos})
        if error is not None:
            raise error

    async def ask(
        self,
        name: str,
        question: Question,
        images: Images,
        request_id: str,
        timings_ms: dict[str, float],
        decoding_s: float = 0.0,
    ) -> ReplicaAnswer:
        """Ask one reward a question. Add the milliseconds of the answer and of its batches to `timings_ms`.

        Whether the reward scores or compares is known before any image is sent. If an upgrade has changed that, the
        answer says so, and the question is asked again. The reward's deadline holds for all of it, and
        for `decoding_s`, the seconds that decoding the images took before.

        Raises:
            RewardsError: the reward failed, or did not answer in time.
        """
        started = time.perf_counter()
        deadline_s = self._config.rewards[name].deadline_s
        try:
            with self._metrics.count_in_flight(name):
                async with asyncio.timeout(deadline_s - decoding_s):
                    while True:
                        if await self._is_pairwise(name):
                            answer = await self._ask_pairwise(name, question, images, request_id)
                        else:
                            answer = await self._call(
                                name, RewardReplica.score, images, question.groups, question.details, request_id
                            )
                        if not answer.other_kind:
                            break
                        self._known.pop(name, None)
                        # While an upgrade runs, old and new replicas answer in turn.
                        await asyncio.sleep(random.uniform(0, KIND_PAUSE_S))
        except RewardsError:  # before TimeoutError, because a RewardTimeoutError is both
            raise
        except TimeoutError:
            raise _timeout_error(name, deadline_s, decoding_s) from None
        self._metrics.count_batches(name, answer)
        timings_ms[f"reward.{name}"] = (time.perf_counter() - started) * 1e3
        timings_ms[f"score.{name}"] = answer.score_ms
        if answer.error is not None:
            raise answer.error
        return answer

    async def describe(self, name: str) -> ModelInfo:
        """Return the reward's description, or the last known one. `state` says whether it answers now. Never raises."""
        try:
            self._known[name] = info = await self._call(name, RewardReplica.describe, deadline_s=DESCRIBE_DEADLINE_S)
            return info
        except OverloadedError:
            state: State = "busy"
        except RewardsError:
            state = "unavailable"
        return self._known.get(name, ModelInfo(name=name)).model_copy(update={"state": state})

    async def probe(self, name: str) -> RewardReadiness:
        """Let the reward score one image. Never raises."""
        started = time.perf_counter()
        try:
            answer: ReplicaAnswer = await self._call(name, RewardReplica.probe)
            message = str(answer.error) if answer.error else ""
        except RewardsError as error:
            message = str(error)
        elapsed_ms = round((time.perf_counter() - started) * 1e3, 3)
        return RewardReadiness(ready=not message, message=message, milliseconds=elapsed_ms)

    async def _is_pairwise(self, name: str) -> bool:
        """Return whether the reward compares images. It is asked once, and again if an answer contradicts it."""
        if name not in self._known:
            self._known[name] = await self._call(name, RewardReplica.describe)
        return self._known[name].mode == "pairwise"

    async def _ask_pairwise(self, name: str, question: Question, images: Images, request_id: str) -> ReplicaAnswer:
        """Ask a pairwise reward for one judgement of a pair, or for tournaments whose outcomes become scores."""
        if question.one_pair:
            (group,) = question.groups
            return await self._call(name, RewardReplica.compare, images, [(0, 1)], group, question.details, request_id)
        settings = self._config.rewards[name]
        # Limits the calls of one request, so that they do not fill the reward's queue, however many groups it has.
        turns = asyncio.Semaphore(settings.first_replicas * settings.max_ongoing)

        async def compare(group_images: Images, pairs: Sequence[tuple[int, int]], group: GroupToScore) -> ReplicaAnswer:
            async with turns:
                return await self._call(name, RewardReplica.compare, group_images, pairs, group, False, request_id)

        try:
            return await score_by_comparing(compare, settings.most_replicas, images, question)
        except KindChangedError as change:
            return change.answer
        except RewardsError as error:
            error.reward = error.reward or name
            raise

    async def _call(
        self, name: str, method: Callable[..., Any], *arguments: Any, deadline_s: float | None = None
    ) -> Any:
        """Call a method of one of the reward's replicas within the deadline, and again if the replica died.

        Args:
            name: the reward's name.
            method: a method of RewardReplica.
            arguments: the method's arguments, images first.
            deadline_s: seconds; by default the reward's deadline.

        Raises:
            RewardsError: any failure.
        """
        deadline_s = deadline_s or self._config.rewards[name].deadline_s
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ReplicaDiedError),
            stop=stop_after_attempt(REPLICA_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
        )
        numbers = itertools.count(1)

        async def attempt() -> Any:
            if next(numbers) < REPLICA_ATTEMPTS:
                return await self._call_once(name, method, *arguments)
            async with self._last_attempts[name]:
                return await self._call_once(name, method, *arguments)

        try:
            async with asyncio.timeout(deadline_s):
                return await attempts(attempt)
        except TimeoutError:
            raise _timeout_error(name, deadline_s) from None
        except RetryError:
            raise self._unavailable(
                name, f"reward {name!r} died {REPLICA_ATTEMPTS} times while it scored this group"
            ) from None

    async def _call_once(self, name: str, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            caller = await self._get_caller(name)
            return await caller.call(method.__name__, *arguments)
        except BackPressureError:
            raise OverloadedError(
                f"the queue of reward {name!r} is full",
                reward=name,
                retry_after_s=self._config.limits.retry_after_s,
            ) from None
        except RayTaskError as error:
            if isinstance(error, ObjectLostError):  # that of an argument; nothing of the reward has run
                cause = type(error.cause).__name__
                raise ServiceUnavailableError(f"the images were lost on their way: {cause}") from None
            logger.exception("reward %s: its deployment failed", name)
            raise RewardError(f"reward {name!r} failed inside its deployment; {LOGS}", reward=name) from None
        except RayServeException:
            raise self._unavailable(name, f"reward {name!r} is not deployed now") from None
        except RayError as error:
            logger.warning("reward %s: a replica died (%s)", name, type(error).__name__)
            raise ReplicaDiedError from None

    async def _get_caller(self, name: str) -> Caller:
        """Return the caller of a reward. The application of a reward with `own_app` is found at its first call."""
        if name not in self._callers:
            target = self._rewards[name]
            handle = await asyncio.to_thread(serve.get_app_handle, target) if isinstance(target, str) else target
            self._callers[name] = Caller(handle)
        return self._callers[name]

    def _unavailable(self, name: str, message: str) -> RewardUnavailableError:
        return RewardUnavailableError(message, reward=name, retry_after_s=self._config.limits.retry_after_s)


def _find_unread(question: Question, rewards: Mapping[str, ModelInfo]) -> InvalidRequestError | None:
    """Return the error of the first key of a question's metadata that none of its rewards reads."""
    schemas = {name: info.metadata_schema for name, info in rewards.items()}
    for group in question.groups:
        try:
            check_keys(group.metadata, schemas)
        except InvalidRequestError as error:
            error.field = f"{group.prefix}{error.field}"
            return error
    return None


def _timeout_error(name: str, deadline_s: float, decoding_s: float = 0.0) -> RewardTimeoutError:
    message = f"reward {name!r} gave no answer within its deadline of {deadline_s:g} s"
    if decoding_s >= 0.1:
        message += f", of which decoding the images took {decoding_s:.1f} s"
    return RewardTimeoutError(message, reward=name)
