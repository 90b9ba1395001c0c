"""Rewards that others write: any list of scores is taken, and anything else is an error that says what it was."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.service import PICTURES, replica_pid

from drpo_rewards import AsyncRankingClient, errors

pytestmark = pytest.mark.integration

MEANS = PICTURES[:2].mean(axis=(1, 2, 3))

TAKEN = [
    "a tuple",
    "a generator",
    "a NumPy array",
    "a column",
    "an array of Scores",
    "a tensor",
    "numbers",
    "NumPy's numbers",
    "tensors",
]
REFUSED = {
    "no Score": r"gave a object for images\[0\], which is not a finite number",
    "one number": r"gave 1\.0 instead of a list of scores",
    "nothing": "gave None instead of a list of scores",
    "a text": "gave '12' instead of a list of scores",
    "a dict": "gave a dict instead of a list of scores",
    "too many": "gave more than 2 scores for 2 images",
    "texts": r"gave '0\.5' for images\[0\], which is not a finite number",
    "infinity": r"gave -inf for images\[0\], which is not a finite number",
    "huge": r"for images\[0\], which is not a finite number",
    "details as a list": r"details of images\[0\] that are a list, not a dict",
    "large details": r"details of images\[0\] that cannot be sent: the dict is more than 100000 bytes of JSON",
    "details in each other": r"details of images\[0\] that cannot be sent: the dict is more than 100000 bytes of JSON",
    "deep details": r"details of images\[0\] that cannot be sent: the dict is nested deeper than 16",
    "rather deep details": r"details of images\[0\] that cannot be sent: the dict is nested deeper than 16",
    "keys of numbers": "the key 1 is not text",
    "an array as details": "ndarray is not JSON serializable",
    "half a letter": r"details of images\[0\] that cannot be sent",
    "exit": "failed with SystemExit",
    "interrupt": "failed with KeyboardInterrupt",
}


async def score(client: AsyncRankingClient, how: str, details: bool = False) -> list[float]:
    answer = await client.rank("p", PICTURES[:2], rewards={"failing": 1}, metadata={"how": how}, details=details)
    return answer.rewards["failing"].scores


@pytest.mark.parametrize("how", TAKEN)
async def test_any_list_of_numbers_is_taken(client: AsyncRankingClient, how: str) -> None:
    assert await score(client, how, details=True) == pytest.approx(MEANS.tolist(), rel=1e-6)


async def test_whole_numbers_are_numbers(client: AsyncRankingClient) -> None:
    assert await score(client, "whole numbers") == MEANS.astype(int).tolist()


@pytest.mark.parametrize("how", REFUSED)
async def test_anything_else_is_named(client: AsyncRankingClient, how: str) -> None:
    with pytest.raises(errors.RewardError) as caught:
        await score(client, how, details=True)
    assert type(caught.value) is errors.RewardError
    assert caught.value.reward == "failing"
    assert re.search(f"reward 'failing' .*{REFUSED[how]}", str(caught.value)), str(caught.value)


@pytest.mark.parametrize("how", ["large details", "deep details"])
async def test_details_that_nobody_asks_for_do_no_harm(client: AsyncRankingClient, how: str) -> None:
    assert await score(client, how) == pytest.approx(MEANS.tolist())


async def test_a_reward_may_change_its_pixels_unseen_by_others(client: AsyncRankingClient) -> None:
    pictures = np.repeat(PICTURES[:2], 100, axis=1)  # a group that travels through shared memory
    for _ in range(2):
        answer = await client.rank(
            "p", pictures, rewards={"failing": 1, "darkness": 1, "corner": 1}, metadata={"how": "change"}
        )
        assert answer.rewards["darkness"].scores == pytest.approx(MEANS.tolist())
        assert answer.rewards["corner"].scores == pictures[:, 0, 0, 0].tolist()


async def test_exit_ends_no_replica(client: AsyncRankingClient) -> None:
    pid = replica_pid("reward-failing")
    with pytest.raises(errors.RewardError):
        await score(client, "exit")
    assert replica_pid("reward-failing") == pid


async def test_texts_that_are_not_unicode_harm_nobody(client: AsyncRankingClient) -> None:
    """Printed, logged and in an error. Serve's logs would try to write such a text again and again."""
    with pytest.raises(errors.InvalidRequestError, match=r"half a letter: \\ud83d"):
        await score(client, "refuse half a letter")
    assert await score(client, "numbers") == pytest.approx(MEANS.tolist())
