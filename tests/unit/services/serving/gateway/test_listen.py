"""A gateway's own listeners, with real sockets and a reward in this process. No Ray runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from support.replica_handle import listening, local_gateway

from drpo_rewards import AsyncRankingClient, errors
from drpo_rewards.serving.gateway.listen import Listeners
from drpo_rewards.serving.listeners import free_port
from drpo_rewards.serving.ports import reserve_port
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.v1 import ranking_pb2_grpc

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("application", ["ranking", "other"])
async def test_both_protocols_answer(application: str) -> None:
    path = "" if application == "ranking" else f"/{application}"
    async with listening(application) as (_, _, http, rpc):
        for address in (f"http://127.0.0.1:{http}{path}", f"grpc://127.0.0.1:{rpc}{path}"):
            async with AsyncRankingClient(address, retries=0) as client:
                answer = await client.rank("p", PICTURES, request_id="mine")
                assert answer.request_id == "mine"
                assert len(answer.order) == 4
                assert await client.ready()


async def test_one_listener_without_the_other() -> None:
    async with listening(grpc=None) as (_, _, http, _), AsyncRankingClient(f"http://127.0.0.1:{http}") as client:
        assert await client.ready()
    async with listening(http=None) as (_, _, _, rpc), AsyncRankingClient(f"grpc://127.0.0.1:{rpc}") as client:
        assert await client.ready()


async def test_a_call_by_another_name_is_refused() -> None:
    async with listening() as (_, _, _, rpc), AsyncRankingClient(f"grpc://127.0.0.1:{rpc}/other", retries=0) as client:
        with pytest.raises(errors.ServiceUnavailableError, match="this service is 'ranking', not 'other'"):
            await client.rank("p", PICTURES)


async def test_several_gateways_of_one_service_share_its_ports() -> None:
    """Each answers some of the connections; when one ends, the other goes on."""
    with reserve_port("127.0.0.1", 0) as holder:  # as `start` does
        port = holder.getsockname()[1]
        async with listening(http=port, grpc=None) as (first, *_):
            async with listening(http=port, grpc=None) as (second, *_):
                for _ in range(40):
                    async with httpx.AsyncClient(trust_env=False) as client:
                        assert (await client.post(f"http://127.0.0.1:{port}/v1/rank", json={})).status_code == 422
                assert all(b"requests_total" in gateway.metrics_text() for gateway in (first, second))
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_another_service_cannot_have_the_port(protocol: str) -> None:
    async with listening() as (gateway, _, http, rpc):
        port = http if protocol == "http" else rpc
        ports: dict[str, Any] = {"http_port": None, "grpc_port": None, f"{protocol}_port": port}
        with pytest.raises(errors.ConfigError, match=f":{port} is taken by a ranking service .*proxy_location"):
            await Listeners(gateway, "other", **ports).open()


async def test_a_client_that_goes_away_costs_no_more() -> None:
    """Its call is cancelled at the reward: its images leave the queue."""
    async with listening() as (gateway, handles, http, rpc):
        handles["redness"].delay_s = 30.0
        for address in (f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{rpc}"):
            async with AsyncRankingClient(address, retries=0) as client:
                call = asyncio.create_task(client.rank("p", PICTURES))
                await _until(lambda: gateway._admission.ongoing == 1 and bool(handles["redness"].calls))
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            await _until(lambda: gateway._admission.ongoing == 0)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_calls_in_progress_end_before_the_listeners_do() -> None:
    gateway, handles = local_gateway(redness="support.rewards:Redness")
    port, rpc = free_port(), free_port()
    listeners = Listeners(gateway, "ranking", port, rpc)
    await listeners.open()
    async with (
        AsyncRankingClient(f"http://127.0.0.1:{port}", retries=0) as http,
        AsyncRankingClient(f"grpc://127.0.0.1:{rpc}", retries=0) as other,
    ):
        handles["redness"].delay_s = 0.5
        calls = [asyncio.create_task(client.rank("p", PICTURES)) for client in (http, other)]
        await _until(lambda: gateway._admission.ongoing == 2)
        closing = asyncio.create_task(listeners.close())
        assert [len((await call).order) for call in calls] == [4, 4]
        await closing
        with pytest.raises(errors.ServiceUnavailableError):
            await http.rank("p", PICTURES)
    with pytest.raises(RuntimeError, match="has ended"):
        listeners.check()  # so that Serve would replace the gateway


async def test_bytes_that_are_no_message_are_refused() -> None:
    async with listening() as (_, _, _, rpc), grpc.aio.insecure_channel(f"127.0.0.1:{rpc}") as channel:
        call = channel.unary_unary("/drpo.rewards.v1.Ranking/Rank")(b"\xff\xff\xff")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "not a message of the type RankRequest" in await call.details()
        trailing = dict(await call.trailing_metadata())
        assert json.loads(trailing["drpo-error"])["request_id"] == trailing["request_id"]


async def test_a_message_above_grpcs_own_limit_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drpo_rewards.serving.gateway.grpc.LEAST_MESSAGE_BYTES", 1000)
    gateway, _ = local_gateway(redness="support.rewards:Redness")
    gateway.config.limits.max_body_mb = 0.001
    rpc = free_port()
    listeners = Listeners(gateway, "ranking", None, rpc)
    await listeners.open()
    async with AsyncRankingClient(f"grpc://127.0.0.1:{rpc}", retries=0) as client:
        with pytest.raises(errors.RequestTooLargeError):
            await client.rank("p", PICTURES)
    await listeners.close()


async def test_another_language_needs_no_metadata() -> None:
    async with listening() as (_, _, _, rpc), grpc.aio.insecure_channel(f"127.0.0.1:{rpc}") as channel:
        assert (await ranking_pb2_grpc.RankingStub(channel).Ready(pb.ReadyRequest())).ready
