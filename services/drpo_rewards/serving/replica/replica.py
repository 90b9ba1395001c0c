"""The deployment of one reward: batches images across requests, and answers scores or a typed error."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drpo_rewards import rewards
from drpo_rewards.api.contract import ModelInfo, TournamentSummary
from drpo_rewards.errors import InvalidRequestError, OverloadedError, RewardError, RewardsError
from drpo_rewards.rewards.base import (
    Comparison,
    Item,
    PairItem,
    Score,
    ScoreItem,
    StagedReward,
)
from drpo_rewards.rewards.checks import check_comparisons, check_scores, describe, is_pairwise, probe
from drpo_rewards.serving.config import RewardConfig
from drpo_rewards.serving.replica.batching import Batcher

Result = Score | Comparison

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class GroupAsk:
    """One group of a call: its prompt, and how errors name its images, one name an image.

    `place` goes before every other field that the reward finds fault with, e.g. `groups[1].`
    """

    prompt: str
    fields: list[str]
    metadata: dict[str, Any] | None = None
    place: str = ""


@dataclass(frozen=True)
class Batch:
    """One call of the reward, as the metrics count it."""

    images: int
    milliseconds: float
    waiting: int  # images that were left in the queue when it began


@dataclass(frozen=True)
class Answer:
    """What became of a call. An error travels as a value: it is an expected outcome, and its traceback stays here."""

    version: str
    sign: int  # -1 where a lower score is the better one
    score_ms: float  # the time of the batches that this call's images were in
    batches: list[Batch]  # those whose first image was of this call, so that each is counted once
    scores: list[Score]
    comparisons: list[Comparison] = field(default_factory=list)  # of a pairwise reward
    tournaments: list[TournamentSummary] = field(default_factory=list)  # one a group, of its scores
    pairwise: bool = False  # it was asked for scores, and has none
    error: RewardsError | None = None


@dataclass(frozen=True)
class Ticket:
    """One item on its way into a batch. `call` and `group` say with which others it came, `field` how to name it."""

    call: int
    group: int
    field: str
    item: Item


@dataclass(frozen=True)
class Outcome:
    """What became of one item, and of which batch it was a part; `first` is the call of that batch's first item."""

    result: Result | RewardsError
    number: int
    batch: Batch
    first: int


class RewardDeployment:
    """Holds one reward, and calls it from threads of its own, so that the event loop stays free meanwhile.

    One thread scores. A StagedReward has another one, which prepares the next batch while this one is scored.
    """

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        settings = RewardConfig.model_validate(config)
        self.name = name
        self.reward = rewards.create(settings.type, settings.options)
        self.info = describe(name, self.reward)
        # A reward that hangs for good keeps its thread. Past this age Serve is told to replace the replica.
        self.stuck_after_s = max(60.0, 3 * settings.deadline_s)
        self._busy_since: dict[int, float] = {}  # by thread
        self._scoring = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"reward-{name}")
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"prepare-{name}")
        self._one_prepares = threading.Lock()  # tokenizers may not be used by two threads at a time
        self._calls, self._batches = itertools.count(), itertools.count()
        # Two batches at a time where one can be prepared while the other one is scored.
        at_once = 2 if isinstance(self.reward, StagedReward) else 1
        self._batcher: Batcher[Ticket, Outcome] = Batcher(
            self._take_batch, settings.batch_size, settings.batch_wait_s, at_once
        )

    async def score(
        self, images: Sequence[np.ndarray], groups: Sequence[GroupAsk], with_details: bool, request_id: str
    ) -> Answer:
        """Score groups, whose images follow each other in `images`. Calls may share batches.

        A pairwise reward only says that it is one: whoever asks then has it compare.
        """
        if is_pairwise(self.reward):
            return Answer(self.info.version, 1, 0.0, [], [], pairwise=True)
        remaining = iter(images)
        items: list[tuple[GroupAsk, str, Item]] = [
            (group, field, ScoreItem(next(remaining), group.prompt, group.metadata))
            for group in groups
            for field in group.fields
        ]
        return await self._answer(items, with_details, request_id)

    async def compare(
        self,
        images: Sequence[np.ndarray],
        pairs: Sequence[tuple[int, int]],
        group: GroupAsk,
        with_details: bool,
        request_id: str,
    ) -> Answer:
        """Have a pairwise reward judge pairs of one group's images, given by their places in `images`."""
        items: list[tuple[GroupAsk, str, Item]] = [
            (group, "images", PairItem(images[first], images[second], group.prompt, group.metadata))
            for first, second in pairs
        ]
        return await self._answer(items, with_details, request_id)

    async def probe(self) -> Answer:
        """Really score one image, through the same batches as everybody's."""
        group = GroupAsk("", ["the probe's image"])
        return await self._answer([(group, group.fields[0], probe(self.reward))], False, "readiness")

    def describe(self) -> ModelInfo:
        return self.info

    def check_health(self) -> None:
        """Serve's own check; raising has the replica replaced."""
        if any(time.monotonic() - since > self.stuck_after_s for since in list(self._busy_since.values())):
            raise RuntimeError(f"reward {self.name!r} has been scoring one batch for over {self.stuck_after_s:.0f} s")

    async def _answer(self, items: list[tuple[GroupAsk, str, Item]], with_details: bool, request_id: str) -> Answer:
        call = next(self._calls)
        tickets = [Ticket(call, id(group), field, item) for group, field, item in items]
        outcomes = await self._batcher.submit(tickets)
        scores: list[Score] = []
        comparisons: list[Comparison] = []
        error = None
        for (group, place, _), outcome in zip(items, outcomes, strict=True):
            result = outcome.result
            if isinstance(result, RewardsError):
                error = _placed(result, group.place)
                logger.info("reward %s: request %s failed: %s", self.name, request_id, error)
                break
            if with_details and not _is_json(result.details):
                said = f"reward {self.name!r} gave details of {place} that are not plain JSON"
                error = RewardError(said, reward=self.name, field=place)
                break
            if isinstance(result, Score):
                scores.append(Score(float(result.value), result.details if with_details else None))
            else:
                comparisons.append(result if with_details else dataclasses.replace(result, details=None))
        batches = {outcome.number: outcome for outcome in outcomes}
        return Answer(
            version=self.info.version,
            sign=1 if self.info.higher_is_better else -1,
            score_ms=sum(outcome.batch.milliseconds for outcome in batches.values()),
            batches=[outcome.batch for outcome in batches.values() if outcome.first == call],
            scores=scores,
            comparisons=comparisons,
            error=error,
        )

    async def _take_batch(self, tickets: list[Ticket]) -> list[Outcome]:
        """One batch, for the batcher."""
        waiting, loop = self._batcher.waiting, asyncio.get_running_loop()
        prepared, prepare_s = await loop.run_in_executor(self._preparing, self._timed, self._prepare_batch, tickets)
        results, score_s = await loop.run_in_executor(self._scoring, self._timed, self._score_batch, tickets, prepared)
        batch = Batch(len(tickets), (prepare_s + score_s) * 1e3, waiting)
        number = next(self._batches)
        return [Outcome(result, number, batch, tickets[0].call) for result in results]

    def _timed(self, work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
        """What `work` returns, and its seconds."""
        thread, started = threading.get_ident(), time.monotonic()
        self._busy_since[thread] = started
        try:
            return work(*arguments), time.monotonic() - started
        finally:
            del self._busy_since[thread]

    def _prepare_batch(self, tickets: list[Ticket]) -> Any:
        """What a StagedReward prepares; None where that fails, and scoring will say how."""
        if not isinstance(self.reward, StagedReward):
            return None
        try:
            with self._one_prepares:
                return self.reward.prepare([ticket.item for ticket in tickets])  # type: ignore[misc]
        except Exception:
            return None

    def _score_batch(self, tickets: list[Ticket], prepared: Any) -> list[Result | RewardsError]:
        """Score a batch; where it fails, score group by group, so that only the one at fault is hurt."""
        groups = [list(own) for _, own in itertools.groupby(tickets, key=lambda ticket: (ticket.call, ticket.group))]
        results = self._attempt(tickets, prepared)
        if not isinstance(results, RewardsError):
            return results
        if len(groups) == 1:
            return [results] * len(tickets)
        outcomes: list[Result | RewardsError] = []
        for own in groups:
            again = self._attempt(own)
            outcomes += [again] * len(own) if isinstance(again, RewardsError) else again
        return outcomes

    def _attempt(self, tickets: list[Ticket], prepared: Any = None) -> list[Result | RewardsError] | RewardsError:
        items: list[Any] = [ticket.item for ticket in tickets]
        fields = [ticket.field for ticket in tickets]
        try:
            if isinstance(self.reward, StagedReward):
                if prepared is None:
                    with self._one_prepares:
                        prepared = self.reward.prepare(items)
                return list(
                    check_scores(self.name, self.reward.score_prepared(prepared), items, fields, self.info.metrics)
                )
            if is_pairwise(self.reward):
                return list(check_comparisons(self.name, self.reward.compare(items), items))
            return list(check_scores(self.name, self.reward.score(items), items, fields, self.info.metrics))  # type: ignore[union-attr]
        except (InvalidRequestError, OverloadedError, RewardError) as error:
            error.reward = error.reward or self.name
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return error
        except Exception as error:
            # The text of a foreign exception may hold paths and hosts: it goes to the log, its kind to the caller.
            logger.exception("reward %s failed on a batch of %d images", self.name, len(tickets))
            kind = type(error).__name__
            return RewardError(f"reward {self.name!r} failed with {kind}; the service's log has more", reward=self.name)


def _is_json(details: dict[str, Any] | None) -> bool:
    try:
        json.dumps(details, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _placed(error: RewardsError, place: str) -> RewardsError:
    """The error, whose field says where in the whole request it is."""
    if error.field is not None and not error.field.startswith(place):
        error.field = place + error.field
    return error
