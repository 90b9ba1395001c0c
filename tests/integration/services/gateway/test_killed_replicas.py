"""Replicas that are killed all the time: as long as one of three is alive, no call of the client fails."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest
from support.service import PICTURES, REDS, TRANSPORTS, address, config, replica_pids

from drpo_rewards import AsyncRankingClient, RankResponse, serving

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

KILL_EVERY_S = 2.0
SECONDS = 40.0


@pytest.mark.timeout(600)
async def test_no_call_fails_while_one_of_three_replicas_lives(service: serving.RunningService) -> None:
    reward = {"type": "support.rewards:TracedRedness", "options": {"delay_s": 0.05}, "num_replicas": 3}
    settings = config(rewards={"redness": reward}, mixtures={})
    running = await asyncio.to_thread(serving.start, settings, app_name="killed", http_port=0, grpc_port=0)
    until = time.monotonic() + SECONDS
    killed = 0

    async def load(transport: str) -> list[RankResponse]:
        answers = []
        async with AsyncRankingClient(address(running, transport)) as client:
            while time.monotonic() < until:
                answers.append(await client.rank("p", PICTURES[:4]))
        return answers

    async def kill() -> None:
        nonlocal killed
        while time.monotonic() < until:
            await asyncio.sleep(KILL_EVERY_S)
            pids = await asyncio.to_thread(replica_pids, "reward-redness", "killed")
            if len(pids) > 1:
                os.kill(random.choice(pids), signal.SIGKILL)
                killed += 1

    try:
        *answers, _ = await asyncio.gather(*(load(transport) for transport in TRANSPORTS), kill())
    finally:
        await asyncio.to_thread(running.stop)
    assert killed >= 5
    assert all(answer.rewards["redness"].scores == REDS[:4].tolist() for each in answers for answer in each)
