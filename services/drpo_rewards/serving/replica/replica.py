"""One replica of one reward, which batches images across calls and answers with scores or a typed error."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from drpo_rewards import rewards
from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.api.metadata import take_share
from drpo_rewards.api.question import Batch, GroupToScore, ReplicaAnswer
from drpo_rewards.cluster.logs import let_logs_take_any_text
from drpo_rewards.errors import LOGS, InvalidRequestError, OverloadedError, RewardError, RewardsError
from drpo_rewards.rewards.base import Comparison, PairItem, Score, ScoreItem, StagedReward
from drpo_rewards.rewards.checks import (
    check_comparisons,
    check_details,
    check_scores,
    copy_items,
    describe,
    is_pairwise,
    probe,
)
from drpo_rewards.serving.config import RewardConfig
from drpo_rewards.serving.replica.batching import Batcher

logger = logging.getLogger("ray.serve")

Outcome = Score | Comparison | RewardsError


@dataclass(frozen=True)
class Ticket:
    """One item on its way into a batch.

    Attributes:
        call: the number of the call that it belongs to.
        group: its group. If a batch fails, each group of each call is scored separately.
        field: its name in errors.
        item: what the reward gets.
    """

    call: int
    group: GroupToScore
    field: str
    item: ScoreItem | PairItem


@dataclass(frozen=True)
class Processed:
    """A ticket's outcome and its batch.

    Attributes:
        outcome: the score, the comparison, or the error.
        number: the number of the batch.
        batch: the record of the batch for metrics.
        first_call: the call of the batch's first ticket, whose answer reports the batch.
    """

    outcome: Outcome
    number: int
    batch: Batch
    first_call: int


class RewardReplica:
    """Holds one reward, and calls it in separate threads, so that the event loop stays free.

    One thread scores. A StagedReward has another one, which prepares the next batch while this one is scored.

    Args:
        name: the reward's name in the service.
        config: the fields of its RewardConfig.
    """

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        let_logs_take_any_text()
        settings = RewardConfig.model_validate(config)
        self.name = name
        self.reward: Any = rewards.create(settings.type, settings.options)  # a Reward, StagedReward or PairwiseReward
        self.info = describe(name, self.reward)
        self._pairwise, self._staged = is_pairwise(self.reward), isinstance(self.reward, StagedReward)
        # A reward that hangs keeps its thread. After this time the health check fails, and Serve replaces the replica.
        self.stuck_after_s = max(60.0, 3 * settings.deadline_s)
        self._busy_since: dict[int, float] = {}  # by thread
        self._scoring = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"reward-{name}")
        # Only one thread prepares, because two threads must not use a tokenizer at the same time.
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"prepare-{name}")
        self._calls, self._batches = itertools.count(), itertools.count()
        # Two batches at the same time, if one can be prepared while the other is scored.
        self._batcher: Batcher[Ticket, Processed] = Batcher(
            self._run_batch, settings.batch_size, settings.batch_wait_s, batches_at_once=2 if self._staged else 1
        )

    async def score(
        self, images: Sequence[np.ndarray], groups: Sequence[GroupToScore], with_details: bool, request_id: str
    ) -> ReplicaAnswer:
        """Score groups, whose images follow each other in `images`. Calls may share batches."""
        if self._pairwise:
            return ReplicaAnswer(version=self.info.version, other_kind=True)
        call, remaining = next(self._calls), iter(images)
        tickets = [
            Ticket(call, group, field, ScoreItem(next(remaining), group.prompt, metadata))
            for group, metadata in zip(groups, map(self._take_metadata, groups), strict=True)
            for field in group.fields
        ]
        return self._collect(tickets, await self._batcher.submit(tickets), with_details, request_id)

    async def compare(
        self,
        images: Sequence[np.ndarray],
        pairs: Sequence[tuple[int, int]],
        group: GroupToScore,
        with_details: bool,
        request_id: str,
    ) -> ReplicaAnswer:
        """Judge pairs of one group's images, given by their indices in `images`."""
        if not self._pairwise:
            return ReplicaAnswer(version=self.info.version, other_kind=True)
        call, metadata = next(self._calls), self._take_metadata(group)
        tickets = [
            Ticket(call, group, "images", PairItem(images[first], images[second], group.prompt, metadata))
            for first, second in pairs
        ]
        return self._collect(tickets, await self._batcher.submit(tickets), with_details, request_id)

    def _take_metadata(self, group: GroupToScore) -> dict[str, Any] | None:
        """Return what of a group's metadata concerns this reward."""
        return take_share(group.metadata, self.info.metadata_schema)

    async def probe(self) -> ReplicaAnswer:
        """Score one image, in the same batches as other calls."""
        group = GroupToScore("", ["the probe's image"])
        tickets = [Ticket(next(self._calls), group, group.fields[0], probe(self.reward))]
        return self._collect(tickets, await self._batcher.submit(tickets), False, "readiness")

    def describe(self) -> ModelInfo:
        """Return the reward's entry of `GET /v1/models`."""
        return self.info

    def check_health(self) -> None:
        """Raise an error if a batch hangs. Serve calls this, and then replaces the replica."""
        if any(time.monotonic() - since > self.stuck_after_s for since in list(self._busy_since.values())):
            raise RuntimeError(f"reward {self.name!r} has been scoring one batch for over {self.stuck_after_s:.0f} s")

    async def _run_batch(self, tickets: list[Ticket]) -> list[Processed]:
        """Score one batch. If it fails, score group by group, so that only the group at fault fails."""
        waiting, seconds = self._batcher.waiting, [0.0]
        outcomes = await self._attempt(tickets, seconds)
        by_group = itertools.groupby(tickets, key=lambda ticket: (ticket.call, id(ticket.group)))
        groups = [list(group_tickets) for _, group_tickets in by_group]
        if isinstance(outcomes[0], RewardsError) and len(groups) > 1:
            outcomes = [outcome for group in groups for outcome in await self._attempt(group, seconds)]
        batch, number = Batch(len(tickets), sum(seconds) * 1e3, waiting), next(self._batches)
        return [Processed(outcome, number, batch, tickets[0].call) for outcome in outcomes]

    async def _attempt(self, tickets: list[Ticket], seconds: list[float]) -> Sequence[Outcome]:
        """Call the reward with these tickets' items. If it fails, its error is the outcome of all of them.

        The seconds that the reward took are appended to `seconds`.
        """
        items: list[Any] = [ticket.item for ticket in tickets]
        fields = [ticket.field for ticket in tickets]
        scoring = functools.partial(self._in_thread, self._scoring, seconds, len(items))
        preparing = functools.partial(self._in_thread, self._preparing, seconds, len(items))

        def compare() -> list[Comparison]:
            return check_comparisons(self.name, self.reward.compare(copy_items(items)), items)

        def prepare() -> Any:
            return self.reward.prepare(copy_items(items))

        def score() -> list[Score]:
            scores = self.reward.score_prepared(prepared) if self._staged else self.reward.score(copy_items(items))
            return check_scores(self.name, scores, items, fields, self.info.metrics)

        try:
            if self._pairwise:
                return await scoring(compare)
            prepared = await preparing(prepare) if self._staged else None
            return await scoring(score)
        except Exception as error:
            return [self._convert_error(error, len(tickets))] * len(tickets)

    async def _in_thread(
        self, executor: ThreadPoolExecutor, seconds: list[float], images: int, work: Callable[[], Any]
    ) -> Any:
        """Run `work` in the executor's thread, and append its seconds to `seconds`.

        Errors are converted in that thread already. A StopIteration could not reach the event loop: the future would
        never be done. A CancelledError of concurrent.futures would look like a cancellation of the batch, and a
        SystemExit would end the process.
        """

        def timed() -> Any:
            thread, started = threading.get_ident(), time.monotonic()
            self._busy_since[thread] = started
            try:
                return work()
            except BaseException as error:
                raise self._convert_error(error, images) from None
            finally:
                seconds.append(time.monotonic() - started)
                del self._busy_since[thread]

        return await asyncio.get_running_loop().run_in_executor(executor, timed)

    def _convert_error(self, error: BaseException, images: int) -> RewardsError:
        """Convert what the reward raised to the error that the caller gets."""
        if isinstance(error, InvalidRequestError | OverloadedError | RewardError):
            error.reward = error.reward or self.name
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return error
        # The text of any other exception may name paths and hosts, so it goes to the log only.
        logger.error("reward %s failed on a batch of %d images", self.name, images, exc_info=error)
        kind = type(error).__name__
        return RewardError(f"reward {self.name!r} failed with {kind}; {LOGS}", reward=self.name)

    def _collect(
        self, tickets: list[Ticket], processed: list[Processed], with_details: bool, request_id: str
    ) -> ReplicaAnswer:
        """Make one call's answer from the outcomes of its tickets."""
        scores: list[Score] = []
        comparisons: list[Comparison] = []
        error = None
        for ticket, result in zip(tickets, processed, strict=True):
            error = self._find_error(ticket, result.outcome, with_details)
            if error is not None:
                logger.info("reward %s: request %s failed: %s", self.name, request_id, error)
                break
            if isinstance(result.outcome, Score):
                scores.append(result.outcome)
            elif isinstance(result.outcome, Comparison):
                comparisons.append(result.outcome)
        batches = {result.number: result for result in processed}
        metrics = {
            metric.name: [float((score.details or {})[metric.name]) for score in scores]
            for metric in (self.info.metrics if with_details and error is None else ())
        }
        if not with_details:
            scores = [dataclasses.replace(score, details=None) for score in scores]
            comparisons = [dataclasses.replace(comparison, details=None) for comparison in comparisons]
        return ReplicaAnswer(
            version=self.info.version,
            sign=1 if self.info.higher_is_better else -1,
            score_ms=sum(result.batch.milliseconds for result in batches.values()),
            batches=[result.batch for result in batches.values() if result.first_call == tickets[0].call],
            scores=scores,
            metrics=metrics,
            comparisons=comparisons,
            error=error,
        )

    def _find_error(self, ticket: Ticket, outcome: Outcome, with_details: bool) -> RewardsError | None:
        """Return the error of a ticket's outcome; None if the outcome can be sent."""
        if isinstance(outcome, RewardsError):
            if outcome.field == "prompt":
                outcome.field = ticket.group.prompt_field
            if outcome.field is not None and not outcome.field.startswith(ticket.group.prefix):
                outcome.field = ticket.group.prefix + outcome.field
            return outcome
        if with_details:
            try:
                check_details(self.name, outcome.details, ticket.field)
            except RewardError as error:
                return error
        return None
