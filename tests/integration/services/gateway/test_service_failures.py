"""The ranking service when it is overloaded, loses a replica, hangs or cannot start."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from support.service import PICTURES, REDS, TRANSPORTS, address, replica_pid

from drpo_rewards import AsyncRankingClient, RankResponse, errors, serving
from drpo_rewards.api.contract import PairOptions

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_overload_is_an_error_that_retries_overcome(service: serving.RunningService, transport: str) -> None:
    """`busy` scores one group at a time and lets one wait."""
    target = address(service, transport)
    async with AsyncRankingClient(target, retries=0, max_in_flight=8) as hasty:
        calls = [hasty.rank("p", PICTURES[:2], rewards={"busy": 1}) for _ in range(8)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, errors.OverloadedError)]
    served = [result for result in results if isinstance(result, RankResponse)]
    assert len(refused) + len(served) == 8
    assert refused
    assert served
    assert all(error.retry_after_s == 1.0 and error.reward == "busy" for error in refused)
    async with AsyncRankingClient(target, retries=30, max_in_flight=4) as patient:
        assert len(await asyncio.gather(*(patient.rank("p", PICTURES[:2], rewards={"busy": 1}) for _ in range(4)))) == 4


@pytest.mark.parametrize("victim", ["reward-redness", "gateway"])
async def test_a_killed_replica_costs_no_call(service: serving.RunningService, victim: str) -> None:
    """A replica is killed during calls over all transports; every call succeeds, with the right numbers."""
    clients = [AsyncRankingClient(address(service, name), max_in_flight=2, timeout_s=200) for name in TRANSPORTS]
    killed = asyncio.Event()

    async def load(client: AsyncRankingClient) -> list[RankResponse]:
        answers = []
        while not killed.is_set() or len(answers) < 20:
            answers.append(await client.rank("p", PICTURES[:8], pairs=PairOptions(count=4, seed=1)))
        return answers

    async def kill() -> None:
        await asyncio.sleep(0.5)
        pid = await asyncio.to_thread(replica_pid, victim)
        os.kill(pid, signal.SIGKILL)
        while await asyncio.to_thread(replica_pid_or_none, victim) in (None, pid):
            await asyncio.sleep(0.1)
        killed.set()

    *answers, _ = await asyncio.gather(*(load(client) for client in clients), kill())
    everything = [answer for per_client in answers for answer in per_client]
    assert {tuple(answer.rewards["redness"].scores) for answer in everything} == {tuple(REDS[:8])}
    assert len({tuple(answer.pairs) for answer in everything}) == 1
    for client in clients:
        await client.close()


def replica_pid_or_none(name: str) -> int | None:
    try:
        return replica_pid(name)
    except IndexError:
        return None


async def test_a_hanging_reward_delays_no_other(service: serving.RunningService) -> None:
    async def hanging(client: AsyncRankingClient) -> None:
        with pytest.raises(errors.RewardTimeoutError, match="deadline of 4 s") as caught:
            await client.rank("p", PICTURES[:2], rewards={"hanging": 1, "redness": 1}, metadata={"how": "hang"})
        assert caught.value.reward == "hanging"

    clients = [AsyncRankingClient(address(service, name), retries=0) for name in TRANSPORTS]
    stuck = [asyncio.create_task(hanging(client)) for client in clients]
    await asyncio.gather(*(client.rank("p", PICTURES[:2]) for client in clients))
    assert not any(task.done() for task in stuck)  # the other calls were answered while these hang
    await asyncio.gather(*stuck)
    readiness = await clients[1].readiness()
    assert {name for name, state in readiness.rewards.items() if not state.ready} == {"hanging"}
    assert not await clients[2].ready()
    for client in clients:
        await client.close()


async def test_a_group_that_kills_replicas_fails_alone(service: serving.RunningService) -> None:
    """Other calls of the same reward, which lose their replica with it, are answered."""
    async with AsyncRankingClient(service.handle_address, timeout_s=200, retries=0) as client:

        async def ask(how: str) -> RankResponse:
            return await client.rank("p", PICTURES[:2], rewards={"failing": 1}, metadata={"how": how})

        async def ask_until(ended: asyncio.Task[RankResponse]) -> int:
            answers = 0
            while not ended.done():
                assert (await ask("")).all_tied
                answers += 1
            return answers

        killer = asyncio.create_task(ask("die"))
        answers = await asyncio.gather(*(ask_until(killer) for _ in range(3)))
        with pytest.raises(errors.RewardUnavailableError, match="died 3 times") as caught:
            await killer
        assert caught.value.reward == "failing"
        assert min(answers) > 0
        assert (await ask("")).all_tied  # a new replica works


@pytest.mark.thorough
def test_a_reward_that_ends_its_process_at_its_start_is_named(service: serving.RunningService) -> None:
    ending = {"rewards": {"a": {"type": "support.rewards:ExitsAtItsStart", "num_cpus": 0.1}}}
    with pytest.raises(errors.ConfigError) as caught:
        serving.start(serving.ServiceConfig.model_validate(ending), app_name="ending")
    _, line = str(caught.value).splitlines()
    assert line.startswith("reward-a: its process ended while it started")


async def test_deadlines_and_absent_services() -> None:
    async with AsyncRankingClient("http://127.0.0.1:9", retries=1) as client:
        with pytest.raises(errors.ServiceUnavailableError, match="cannot reach"):
            await client.rank("p", PICTURES[:2])
        assert not await client.ready()
    async with AsyncRankingClient("grpc://127.0.0.1:9", retries=0) as client:
        with pytest.raises(errors.ServiceUnavailableError):
            await client.models()
    with pytest.raises(ValueError, match="cannot use the address"):
        AsyncRankingClient("ftp://127.0.0.1")


async def test_the_clients_own_deadline(client: AsyncRankingClient) -> None:
    client.timeout_s = 0.05
    with pytest.raises(errors.RankingTimeoutError):
        await client.rank("p", PICTURES[:2], rewards={"busy": 1})


def test_a_service_that_cannot_start_says_why(service: serving.RunningService) -> None:
    broken = serving.ServiceConfig.model_validate(
        {"rewards": {"a": {"type": "geneval", "options": {"detector": "no"}}}}
    )
    with pytest.raises(errors.ConfigError, match="no detector 'no'"):
        serving.start(broken, app_name="broken")
    greedy = serving.ServiceConfig.model_validate({"rewards": {"a": {"type": "geneval", "num_gpus": 2}}})
    with pytest.raises(errors.ConfigError, match="ask for 2 GPUs"):
        serving.start(greedy, app_name="greedy")
    nowhere = serving.ServiceConfig.model_validate({"rewards": {"a": {"type": "geneval", "resources": {"moon": 0.1}}}})
    with pytest.raises(errors.ConfigError, match=r"ask for 0\.1 moon"):
        serving.start(nowhere, app_name="nowhere")
