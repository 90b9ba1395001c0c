"""One replica of one reward: batches images across calls, and answers scores or a typed error."""

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
from dataclasses import dataclass
from typing import Any

import numpy as np

from drpo_rewards import rewards
from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.api.question import Batch, GroupToScore, ReplicaAnswer
from drpo_rewards.errors import InvalidRequestError, OverloadedError, RewardError, RewardsError
from drpo_rewards.rewards.base import Comparison, PairItem, Score, ScoreItem, StagedReward
from drpo_rewards.rewards.checks import check_comparisons, check_scores, describe, is_pairwise, probe
from drpo_rewards.serving.config import RewardConfig
from drpo_rewards.serving.replica.batching import Batcher

logger = logging.getLogger("ray.serve")

Outcome = Score | Comparison | RewardsError


@dataclass(frozen=True)
class Ticket:
    """One item on its way into a batch.

    Attributes:
        call: number of the call that it came with.
        group: its group. Where a batch fails, each group of each call is tried by itself.
        field: how an error names it.
        item: what the reward gets.
    """

    call: int
    group: GroupToScore
    field: str
    item: ScoreItem | PairItem


@dataclass(frozen=True)
class Processed:
    """What became of one ticket: its outcome, the number and the record of its batch, and that batch's first call."""

    outcome: Outcome
    number: int
    batch: Batch
    first_call: int


class RewardReplica:
    """Holds one reward, and calls it from threads of its own, so that the event loop stays free meanwhile.

    One thread scores. A StagedReward has another one, which prepares the next batch while this one is scored.

    Args:
        name: of the reward at the gateway.
        config: fields of its RewardConfig.
    """

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        settings = RewardConfig.model_validate(config)
        self.name = name
        self.reward: Any = rewards.create(settings.type, settings.options)  # a Reward, StagedReward or PairwiseReward
        self.info = describe(name, self.reward)
        self._pairwise, self._staged = is_pairwise(self.reward), isinstance(self.reward, StagedReward)
        # A reward that hangs for good keeps its thread. Past this age Serve is told to replace the replica.
        self.stuck_after_s = max(60.0, 3 * settings.deadline_s)
        self._busy_since: dict[int, float] = {}  # by thread
        self._scoring = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"reward-{name}")
        # One thread prepares, because a tokenizer may not be used by two at a time.
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"prepare-{name}")
        self._calls, self._batches = itertools.count(), itertools.count()
        # Two batches at a time where one can be prepared while the other one is scored.
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
            Ticket(call, group, field, ScoreItem(next(remaining), group.prompt, group.metadata))
            for group in groups
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
        call = next(self._calls)
        tickets = [
            Ticket(call, group, "images", PairItem(images[first], images[second], group.prompt, group.metadata))
            for first, second in pairs
        ]
        return self._collect(tickets, await self._batcher.submit(tickets), with_details, request_id)

    async def probe(self) -> ReplicaAnswer:
        """Really score one image, through the same batches as everybody's."""
        group = GroupToScore("", ["the probe's image"])
        tickets = [Ticket(next(self._calls), group, group.fields[0], probe(self.reward))]
        return self._collect(tickets, await self._batcher.submit(tickets), False, "readiness")

    def describe(self) -> ModelInfo:
        """Say what the reward is."""
        return self.info

    def check_health(self) -> None:
        """Serve's own check; raising has the replica replaced."""
        if any(time.monotonic() - since > self.stuck_after_s for since in list(self._busy_since.values())):
            raise RuntimeError(f"reward {self.name!r} has been scoring one batch for over {self.stuck_after_s:.0f} s")

    async def _run_batch(self, tickets: list[Ticket]) -> list[Processed]:
        """Score one batch; where it fails, score group by group, so that only the one at fault is hurt."""
        waiting, seconds = self._batcher.waiting, [0.0]
        outcomes = await self._attempt(tickets, seconds)
        groups = [
            list(own) for _, own in itertools.groupby(tickets, key=lambda ticket: (ticket.call, id(ticket.group)))
        ]
        if isinstance(outcomes[0], RewardsError) and len(groups) > 1:
            outcomes = [outcome for own in groups for outcome in await self._attempt(own, seconds)]
        batch, number = Batch(len(tickets), sum(seconds) * 1e3, waiting), next(self._batches)
        return [Processed(outcome, number, batch, tickets[0].call) for outcome in outcomes]

    async def _attempt(self, tickets: list[Ticket], seconds: list[float]) -> Sequence[Outcome]:
        """Call the reward with these tickets' items. Where it fails, its error is the outcome of all of them.

        `seconds` gets the time that the reward took.
        """
        items: list[Any] = [ticket.item for ticket in tickets]
        try:
            if self._pairwise:
                judged = await self._in_thread(self._scoring, seconds, self.reward.compare, items, len(items))
                return check_comparisons(self.name, judged, items)
            if self._staged:
                prepared = await self._in_thread(self._preparing, seconds, self.reward.prepare, items, len(items))
                scores = await self._in_thread(self._scoring, seconds, self.reward.score_prepared, prepared, len(items))
            else:
                scores = await self._in_thread(self._scoring, seconds, self.reward.score, items, len(items))
            return check_scores(self.name, scores, items, [ticket.field for ticket in tickets], self.info.metrics)
        except Exception as error:
            return [self._typed(error, len(tickets))] * len(tickets)

    async def _in_thread(
        self,
        executor: ThreadPoolExecutor,
        seconds: list[float],
        work: Callable[[Any], Any],
        argument: Any,
        images: int,
    ) -> Any:
        """Run `work(argument)` in the executor's thread, and add its seconds.

        Its errors get their type in that thread already. A StopIteration could not reach the event loop: the future
        would never be done. A CancelledError of concurrent.futures would look like a cancellation of the batch.
        """

        def timed() -> Any:
            thread, started = threading.get_ident(), time.monotonic()
            self._busy_since[thread] = started
            try:
                return work(argument)
            except Exception as error:
                raise self._typed(error, images) from None
            finally:
                seconds.append(time.monotonic() - started)
                del self._busy_since[thread]

        return await asyncio.get_running_loop().run_in_executor(executor, timed)

    def _typed(self, error: Exception, images: int) -> RewardsError:
        """The error that goes to the caller for what the reward raised."""
        if isinstance(error, InvalidRequestError | OverloadedError | RewardError):
            error.reward = error.reward or self.name
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return error
        # The text of a foreign exception may hold paths and hosts: it goes to the log, its kind to the caller.
        logger.error("reward %s failed on a batch of %d images", self.name, images, exc_info=error)
        kind = type(error).__name__
        return RewardError(f"reward {self.name!r} failed with {kind}; the service's log has more", reward=self.name)

    def _collect(
        self, tickets: list[Ticket], processed: list[Processed], with_details: bool, request_id: str
    ) -> ReplicaAnswer:
        """One call's answer from what became of its tickets."""
        scores: list[Score] = []
        comparisons: list[Comparison] = []
        error = None
        for ticket, one in zip(tickets, processed, strict=True):
            error = self._error_of(ticket, one.outcome, with_details)
            if error is not None:
                logger.info("reward %s: request %s failed: %s", self.name, request_id, error)
                break
            if isinstance(one.outcome, Score):
                scores.append(Score(float(one.outcome.value), one.outcome.details))
            elif isinstance(one.outcome, Comparison):
                comparisons.append(one.outcome)
        batches = {one.number: one for one in processed}
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
            score_ms=sum(one.batch.milliseconds for one in batches.values()),
            batches=[one.batch for one in batches.values() if one.first_call == tickets[0].call],
            scores=scores,
            metrics=metrics,
            comparisons=comparisons,
            error=error,
        )

    def _error_of(self, ticket: Ticket, outcome: Outcome, with_details: bool) -> RewardsError | None:
        """Why a ticket's outcome cannot be answered; None where it can."""
        if isinstance(outcome, RewardsError):
            if outcome.field is not None and not outcome.field.startswith(ticket.group.prefix):
                outcome.field = ticket.group.prefix + outcome.field
            return outcome
        if with_details and not _is_json(outcome.details):
            message = f"reward {self.name!r} gave details of {ticket.field} that are not plain JSON"
            return RewardError(message, reward=self.name, field=ticket.field)
        return None


def _is_json(details: dict[str, Any] | None) -> bool:
    try:
        json.dumps(details, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
