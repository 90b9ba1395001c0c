"""The gateway's calls to a reward: it learns the reward's kind without sending images, except after an upgrade."""

from __future__ import annotations

from typing import Any

import pytest
from support.replica_handle import local_gateway
from support.service import PICTURES

from drpo_rewards import RankResponse
from drpo_rewards.errors import RewardTimeoutError
from drpo_rewards.operations import COMPARE, RANK, SCORE
from drpo_rewards.operations.base import Operation
from drpo_rewards.serving.gateway.call import Origin
from drpo_rewards.serving.gateway.gateway import Gateway


async def perform(gateway: Gateway, operation: Operation[Any, Any], images: int = 4, **fields: Any) -> Any:
    async def read(allowance: object) -> Any:
        return operation.options(**fields), list(PICTURES[:images])

    return await gateway.perform(operation, Origin("serve", "r"), read)


async def rank(gateway: Gateway) -> RankResponse:
    return await perform(gateway, RANK, prompt="p", rewards={"r": 1.0})


async def test_a_judge_gets_images_only_for_comparisons() -> None:
    gateway, handles = local_gateway(r="support.rewards:BrighterOf")
    assert (await rank(gateway)).rewards["r"].tournament is not None
    await perform(gateway, COMPARE, images=2, prompt="p", model="r")
    group = {"prompt": "p", "num_images": 4}
    await perform(gateway, SCORE, groups=[group], rewards=["r"])
    methods = [method for method, _ in handles["r"].calls]
    assert methods == ["describe", *["compare"] * (len(methods) - 1)]
    assert handles["r"].calls[0] == ("describe", 0)


async def test_a_reward_is_described_once() -> None:
    gateway, handles = local_gateway(r="support.rewards:Redness")
    for _ in range(2):
        await rank(gateway)
    assert handles["r"].calls == [("describe", 0), ("score", 4), ("score", 4)]


async def test_an_upgrade_to_the_other_kind_is_detected() -> None:
    gateway, handles = local_gateway(r="support.rewards:Redness")
    assert (await rank(gateway)).rewards["r"].version == "redness-1"
    handles["r"].deploy("support.rewards:BrighterOf")
    handles["r"].calls.clear()
    judged = (await rank(gateway)).rewards["r"]
    assert (judged.version, judged.tournament is not None) == ("brighter-1", True)
    assert handles["r"].calls[:2] == [("score", 4), ("describe", 0)]
    assert {method for method, _ in handles["r"].calls[2:]} == {"compare"}
    handles["r"].deploy("support.rewards:Redness")
    handles["r"].calls.clear()
    assert (await rank(gateway)).rewards["r"].version == "redness-1"
    assert [method for method, _ in handles["r"].calls] == ["compare", "describe", "score"]


async def test_the_deadline_holds_for_the_description_and_the_scores_together() -> None:
    gateway, handles = local_gateway(deadline_s=0.5, r="support.rewards:Redness")
    handles["r"].delay_s = 0.4
    with pytest.raises(RewardTimeoutError, match=r"deadline of 0\.5 s") as caught:
        await rank(gateway)
    assert caught.value.reward == "r"
    assert handles["r"].calls == [("describe", 0), ("score", 4)]
