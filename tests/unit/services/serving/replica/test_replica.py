"""A replica's batches when something fails: only the group at fault fails, and no work is silently repeated."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from support.service import PICTURES, REDS

from drpo_rewards.api.question import GroupToScore
from drpo_rewards.errors import LOGS, InvalidRequestError, RewardError
from drpo_rewards.rewards.base import Score, ScoreItem, StagedReward
from drpo_rewards.serving.replica.replica import RewardReplica


class PreparedRedness(StagedReward):
    """Redness whose preparation fails for the prompt "bad", and whose network fails for the prompt "worse"."""

    version = "prepared-1"

    def __init__(self) -> None:
        self.prepared: list[int] = []

    def prepare(self, items: Sequence[ScoreItem]) -> list[ScoreItem]:
        self.prepared.append(len(items))
        if any(item.prompt == "bad" for item in items):
            raise InvalidRequestError("this prompt cannot be prepared", field="metadata")
        return list(items)

    def score_prepared(self, prepared: list[ScoreItem]) -> list[Score]:
        if any(item.prompt == "worse" for item in prepared):
            raise RuntimeError("out of memory at /some/path")
        if any(item.prompt == "stops" for item in prepared):
            raise StopIteration
        if any(item.prompt == "exits" for item in prepared):
            sys.exit("goodbye")
        if any(item.prompt == "cancels" for item in prepared):
            raise concurrent.futures.CancelledError
        return [Score(float(item.image.mean(axis=(0, 1)) @ np.array([1, -0.5, -0.5]))) for item in prepared]


@pytest.fixture
def replica() -> RewardReplica:
    return RewardReplica("r", {"type": f"{__name__}:PreparedRedness"})


def group(prompt: str, number: int) -> GroupToScore:
    return GroupToScore(
        prompt, [f"groups[{number}].images[{index}]" for index in range(2)], prefix=f"groups[{number}]."
    )


async def test_a_preparation_that_fails_is_not_repeated(replica: RewardReplica) -> None:
    answer = await replica.score(PICTURES[:2], [group("bad", 0)], False, "r")
    assert isinstance(answer.error, InvalidRequestError)
    assert (answer.error.reward, answer.error.field) == ("r", "groups[0].metadata")
    assert replica.reward.prepared == [2]


async def test_a_batch_that_fails_is_tried_group_by_group(replica: RewardReplica) -> None:
    answer = await replica.score(PICTURES[:4], [group("good", 0), group("bad", 1)], False, "r")
    assert isinstance(answer.error, InvalidRequestError)
    assert answer.error.field == "groups[1].metadata"
    assert replica.reward.prepared == [4, 2, 2]
    assert [score.value for score in answer.scores] == pytest.approx(REDS[:2].tolist())


async def test_what_the_network_raises_is_named_and_not_quoted(replica: RewardReplica) -> None:
    answer = await replica.score(PICTURES[:2], [group("worse", 0)], False, "r")
    assert isinstance(answer.error, RewardError)
    assert str(answer.error) == f"reward 'r' failed with RuntimeError; {LOGS}"
    fine = await replica.score(PICTURES[:2], [group("good", 0)], True, "r")
    assert fine.error is None
    assert (fine.version, fine.sign, [batch.images for batch in fine.batches]) == ("prepared-1", 1, [2])


@pytest.mark.parametrize(
    ("prompt", "kind"), [("stops", "StopIteration"), ("cancels", "CancelledError"), ("exits", "SystemExit")]
)
async def test_an_exception_that_asyncio_treats_specially_fails_only_its_group(
    replica: RewardReplica, prompt: str, kind: str
) -> None:
    async with asyncio.timeout(20):
        failed, fine = await asyncio.gather(
            replica.score(PICTURES[:2], [group(prompt, 0)], False, "r"),
            replica.score(PICTURES[:2], [group("good", 0)], False, "r"),
        )
        later = await replica.score(PICTURES[:2], [group("good", 0)], False, "r")
    assert str(failed.error) == f"reward 'r' failed with {kind}; {LOGS}"
    assert fine.error is None
    assert later.error is None
