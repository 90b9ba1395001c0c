"""Scores of groups by a pairwise reward: a tournament per group, all at once, with rounds spread over the replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from drpo_rewards.api.question import GroupToScore, Question, ReplicaAnswer
from drpo_rewards.api.scores import Comparison
from drpo_rewards.errors import InvalidRequestError, RewardsError
from drpo_rewards.ranking.tournament import Tournament, TournamentResult, seeding
from drpo_rewards.serving.gateway.tasks import run_together

Images = Sequence[np.ndarray]
Pairs = Sequence[tuple[int, int]]

# Lets one replica judge pairs of these images.
Compare = Callable[[Images, Pairs, GroupToScore], Coroutine[Any, Any, ReplicaAnswer]]


class KindChangedError(RewardsError):
    """The reward was upgraded to one that scores images. Never leaves the gateway."""

    def __init__(self, answer: ReplicaAnswer) -> None:
        super().__init__("the reward now scores images instead of comparing them")
        self.answer = answer


async def score_by_comparing(compare: Compare, replicas: int, images: Images, question: Question) -> ReplicaAnswer:
    """Answer a question like a pointwise reward, with scores from tournaments. The first failure ends all of them.

    Raises:
        RewardsError: a group has only one image, the reward failed, or none of the judge's answers could be read.
        KindChangedError: the reward does not compare any more.
    """
    for group in question.groups:
        if len(group.fields) < 2:
            field = group.fields[0].rpartition("[")[0]
            raise InvalidRequestError(
                f"`{field}` has only one image; a pairwise reward needs at least two", field=field
            )
    answers: list[ReplicaAnswer] = []

    async def ask(group_images: Images, pairs: Pairs, group: GroupToScore) -> list[Comparison]:
        used = sorted({index for pair in pairs for index in pair})  # a replica gets only the images that it needs
        positions = {index: position for position, index in enumerate(used)}
        used_pairs = [(positions[first], positions[second]) for first, second in pairs]
        answer = await compare([group_images[index] for index in used], used_pairs, group)
        if answer.other_kind:
            raise KindChangedError(answer)
        if answer.error is not None:
            raise answer.error
        answers.append(answer)
        return answer.comparisons

    remaining = iter(images)
    results = await run_together(
        _play(ask, replicas, [next(remaining) for _ in group.fields], group, question.all_pairs)
        for group in question.groups
    )
    return ReplicaAnswer(
        version=answers[0].version,
        sign=1,  # higher strengths are better
        score_ms=sum(answer.score_ms for answer in answers),
        batches=[batch for answer in answers for batch in answer.batches],
        scores=[score for result in results for score in result.scores],
        tournaments=[result.summary for result in results],
    )


async def _play(
    ask: Callable[[Images, Pairs, GroupToScore], Coroutine[Any, Any, list[Comparison]]],
    replicas: int,
    images: Images,
    group: GroupToScore,
    all_pairs: bool,
) -> TournamentResult:
    """Play one group's tournament. Hashing pixels and fitting strengths take CPU time, so they run in threads."""
    tournament = Tournament(await asyncio.to_thread(seeding, group.prompt, images), all_pairs)
    while pairs := tournament.next_round():
        share = -(-len(pairs) // replicas)
        parts = [pairs[start : start + share] for start in range(0, len(pairs), share)]
        judged = await run_together(ask(images, part, group) for part in parts)
        await asyncio.to_thread(tournament.record, pairs, [comparison for part in judged for comparison in part])
    return tournament.result()
