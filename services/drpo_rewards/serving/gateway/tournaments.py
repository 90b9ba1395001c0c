"""How a pairwise reward scores groups: a tournament for each, all at once, their rounds spread over the replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.ranking.tournament import Result, Tournament, seeding
from drpo_rewards.rewards.base import Comparison
from drpo_rewards.serving.gateway.together import together
from drpo_rewards.serving.replica.replica import Answer, GroupAsk

Images = Sequence[np.ndarray]
Pairs = Sequence[tuple[int, int]]

# Has one replica judge pairs of these images.
Compare = Callable[[Images, Pairs, GroupAsk], Coroutine[Any, Any, Answer]]


async def score_by_comparing(
    compare: Compare, replicas: int, images: Images, groups: Sequence[GroupAsk], all_pairs: bool
) -> Answer:
    """What a pointwise reward's deployment would answer for these groups. The first failure ends all of it.

    Raises a RewardsError: a group of one image, an error of the reward, a judge of whom nothing could be read.
    """
    for group in groups:
        if len(group.fields) < 2:
            field = group.fields[0].rpartition("[")[0]
            raise InvalidRequestError(
                f"`{field}`: one image has nothing to be compared with; a pairwise reward needs two", field=field
            )
    answers: list[Answer] = []

    async def ask(own: Images, pairs: Pairs, group: GroupAsk) -> list[Comparison]:
        used = sorted({index for pair in pairs for index in pair})  # a replica gets only the images that it needs
        places = {index: place for place, index in enumerate(used)}
        within = [(places[first], places[second]) for first, second in pairs]
        answer = await compare([own[index] for index in used], within, group)
        if answer.error is not None:
            raise answer.error
        answers.append(answer)
        return answer.comparisons

    remaining = iter(images)
    results = await together(
        _play(ask, replicas, [next(remaining) for _ in group.fields], group, all_pairs) for group in groups
    )
    return Answer(
        version=answers[0].version,
        sign=1,  # strengths: the higher is the better
        score_ms=sum(answer.score_ms for answer in answers),
        batches=[batch for answer in answers for batch in answer.batches],
        scores=[score for result in results for score in result.scores],
        tournaments=[result.summary for result in results],
    )


async def _play(
    ask: Callable[[Images, Pairs, GroupAsk], Coroutine[Any, Any, list[Comparison]]],
    replicas: int,
    images: Images,
    group: GroupAsk,
    all_pairs: bool,
) -> Result:
    """One group's tournament. Hashing pixels and fitting strengths take CPU time: they run off the event loop."""
    tournament = Tournament(await asyncio.to_thread(seeding, group.prompt, images), all_pairs)
    while pairs := tournament.next_round():
        share = -(-len(pairs) // replicas)
        parts = [pairs[start : start + share] for start in range(0, len(pairs), share)]
        judged = await together(ask(images, part, group) for part in parts)
        await asyncio.to_thread(tournament.record, pairs, [comparison for part in judged for comparison in part])
    return tournament.result()
