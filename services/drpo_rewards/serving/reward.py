"""The deployment of one reward: batches images across requests, and answers scores or a typed error."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray import serve

from drpo_rewards import rewards
from drpo_rewards.contract import ModelInfo
from drpo_rewards.errors import RewardError, RewardsError
from drpo_rewards.rewards.base import Score, ScoreItem, checked_scores, describe, probe
from drpo_rewards.serving.config import RewardConfig

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class GroupScores:
    """A group's answer. An error travels as a value: it is an expected outcome, and its traceback stays here."""

    scores: list[float]
    details: list[dict[str, Any] | None]
    version: str
    sign: int  # -1 where a lower score is the better one
    score_ms: float  # the time of the batches that this group's images were in
    error: RewardsError | None = None


@dataclass(frozen=True)
class Ticket:
    """One image on its way into a batch; `group` says with which others it came."""

    group: int
    item: ScoreItem


@dataclass(frozen=True)
class Outcome:
    """What became of one image, and of which batch of how many milliseconds it was a part."""

    score: Score | RewardsError
    batch: int
    batch_ms: float


class RewardDeployment:
    """Holds one reward. Its thread is the only one that calls it, so that the event loop stays free meanwhile."""

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        settings = RewardConfig.model_validate(config)
        self.name = name
        self.reward = rewards.create(settings.type, settings.options)
        self.info = describe(name, self.reward)
        # A reward that hangs for good keeps its thread. Past this age Serve is told to replace the replica.
        self.stuck_after_s = max(60.0, 3 * settings.deadline_s)
        self._scoring_since: float | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"reward-{name}")
        self._groups, self._batches = itertools.count(), itertools.count()
        self._batched.set_max_batch_size(settings.batch_size)  # type: ignore[attr-defined]  # serve.batch adds these
        self._batched.set_batch_wait_timeout_s(settings.batch_wait_s)  # type: ignore[attr-defined]

    async def score(
        self, images: Sequence[np.ndarray], prompt: str, metadata: dict[str, Any] | None, with_details: bool
    ) -> GroupScores:
        """Score one group. Its images may share batches with those of other groups."""
        group = next(self._groups)
        tickets = [Ticket(group, ScoreItem(image, prompt, metadata)) for image in images]
        outcomes: list[Outcome] = await asyncio.gather(*(self._batched(ticket) for ticket in tickets))
        scores = [outcome.score for outcome in outcomes if isinstance(outcome.score, Score)]
        error = next((outcome.score for outcome in outcomes if isinstance(outcome.score, RewardsError)), None)
        return GroupScores(
            scores=[] if error else [float(score.value) for score in scores],
            details=[score.details for score in scores] if with_details and not error else [],
            version=self.info.version,
            sign=1 if self.info.higher_is_better else -1,
            score_ms=sum({outcome.batch: outcome.batch_ms for outcome in outcomes}.values()),
            error=error,
        )

    async def probe(self) -> GroupScores:
        """Really score one image, through the same batches as everybody's."""
        item = probe(self.reward)
        return await self.score([item.image], item.prompt, item.metadata, with_details=False)

    def describe(self) -> ModelInfo:
        return self.info

    def check_health(self) -> None:
        """Serve's own check; raising has the replica replaced."""
        since = self._scoring_since
        if since is not None and time.monotonic() - since > self.stuck_after_s:
            raise RuntimeError(f"reward {self.name!r} has been scoring one batch for over {self.stuck_after_s:.0f} s")

    @serve.batch
    async def _batched(self, tickets: list[Ticket]) -> list[Outcome]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._score_batch, tickets)

    def _score_batch(self, tickets: list[Ticket]) -> list[Outcome]:
        """Score a batch; where it fails, score group by group, so that only the one at fault is hurt."""
        started = self._scoring_since = time.monotonic()
        try:
            results = self._attempt(tickets)
            groups = {ticket.group for ticket in tickets}
            if isinstance(results, RewardsError) and len(groups) == 1:
                outcomes: list[Score | RewardsError] = [results] * len(tickets)
            elif isinstance(results, RewardsError):
                outcomes = []
                for _, members in itertools.groupby(tickets, key=lambda ticket: ticket.group):
                    own = list(members)
                    again = self._attempt(own)
                    outcomes += [again] * len(own) if isinstance(again, RewardsError) else again
            else:
                outcomes = list(results)
        finally:
            self._scoring_since = None
        batch, batch_ms = next(self._batches), (time.monotonic() - started) * 1e3
        return [Outcome(outcome, batch, batch_ms) for outcome in outcomes]

    def _attempt(self, tickets: list[Ticket]) -> list[Score] | RewardsError:
        try:
            return checked_scores(self.name, self.reward, [ticket.item for ticket in tickets])
        except RewardsError as error:
            error.reward = error.reward or self.name
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return error
        except Exception as error:
            logger.exception("reward %s failed on a batch of %d images", self.name, len(tickets))
            return RewardError(f"reward {self.name!r} failed: {type(error).__name__}: {error}", reward=self.name)
