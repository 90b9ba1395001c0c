"""The ranking service on a real Ray Serve, reached over each of its three transports."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from support.ranking_service import CONFIG, KEY, PICTURES, REDS, TRANSPORTS, address, config, replica_pid, timeless

from drpo_rewards import AsyncRankingClient, RankingClient, errors, serving
from drpo_rewards.api.contract import PairOptions, RankResponse
from drpo_rewards.api.images import encode_png
from drpo_rewards.cluster import loopback

pytestmark = pytest.mark.integration


async def test_three_transports_give_one_answer(service: serving.RunningService) -> None:
    answers = []
    for transport in TRANSPORTS:
        async with AsyncRankingClient(address(service, transport)) as client:
            answer = await client.rank(
                "a red star",
                PICTURES,
                rewards={"redness": 2.0, "darkness": 1.0},
                metadata={"include": [{"class": "star", "count": 2}]},
                pairs=PairOptions(count=12, seed=7),
                request_id="same",
            )
            answers.append(timeless(answer))
            assert {"total", "reward.redness", "score.redness", "reward.darkness"} <= set(answer.timings_ms)
    assert answers[0] == answers[1] == answers[2]
    answer = answers[0]
    assert answer.rewards["redness"].scores == pytest.approx(REDS.tolist())
    assert answer.rewards["redness"].weight == pytest.approx(2 / 3)
    assert answer.rewards["darkness"].weight == pytest.approx(-1 / 3)  # there the lower score is the better one
    assert answer.rewards["darkness"].version == "darkness-1"
    dark = PICTURES.astype(float).mean(axis=(1, 2, 3))
    expected = 2 / 3 * (REDS - REDS.mean()) / REDS.std() - 1 / 3 * (dark - dark.mean()) / dark.std()
    assert answer.combined == pytest.approx(expected.tolist())
    assert answer.order == np.argsort(-expected).tolist()
    assert len(answer.pairs) == 12
    assert all(answer.combined[winner] > answer.combined[loser] for winner, loser in answer.pairs)


async def test_every_kind_of_image_gives_the_same_answer(client: AsyncRankingClient, tmp_path: Path) -> None:
    group = PICTURES[:4]
    path = tmp_path / "two.png"
    path.write_bytes(encode_png(group[2]))
    mixed = [group[0], Image.fromarray(group[1]), path, encode_png(group[3])]
    first, second = await client.rank("p", group, request_id="x"), await client.rank("p", mixed, request_id="x")
    assert timeless(first) == timeless(second)


async def test_pictures_of_a_group_may_differ_in_size(client: AsyncRankingClient) -> None:
    answer = await client.rank("p", [PICTURES[0], PICTURES[1, :9, :12]])
    assert len(answer.combined) == 2


async def test_large_groups_arrive_too(client: AsyncRankingClient) -> None:
    """More than Serve's own messages hold, and more than a batch."""
    group = np.zeros((40, 256, 256, 3), dtype=np.uint8)
    group[17, :, :, 0] = 9
    answer = await client.rank("p", group, details=True)
    assert answer.order[0] == 17
    details = answer.rewards["redness"].details
    assert details is not None
    assert {detail["batch"] for detail in details if detail} <= set(range(1, 33))


async def test_named_mixtures_and_normalisations(client: AsyncRankingClient) -> None:
    named = await client.rank("p", PICTURES, mixture="both")
    given = await client.rank("p", PICTURES, rewards={"redness": 3, "darkness": 1})
    assert named.combined == given.combined
    assert (await client.rank("p", PICTURES)).order == np.argsort(-REDS).tolist()
    assert (await client.rank("p", PICTURES, normalize="none")).combined == pytest.approx(REDS.tolist())
    assert set((await client.rank("p", PICTURES, normalize="rank")).combined) == {place / 23 for place in range(24)}


async def test_a_tied_group_prefers_nothing(client: AsyncRankingClient) -> None:
    answer = await client.rank("p", np.stack([PICTURES[0]] * 3), pairs=PairOptions(count=4))
    assert answer.all_tied
    assert answer.pairs == []


async def test_models_and_readiness(client: AsyncRankingClient) -> None:
    models = {info.name: info for info in await client.models()}
    assert set(models) == {*CONFIG["rewards"], *CONFIG["mixtures"]}
    assert models["redness"].range == (-255, 255)
    assert not models["darkness"].higher_is_better
    assert models["both"].kind == "mixture"
    assert models["both"].weights == {"redness": 3.0, "darkness": 1.0}
    readiness = await client.readiness()
    assert readiness.rewards["redness"].ready
    assert await client.ready() == readiness.ready is True


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("raise", errors.RewardError, "ZeroDivisionError"),
        ("short", errors.RewardError, "gave 2 scores for 3 images"),
        ("nan", errors.RewardError, "gave nan for images\\[0\\]"),
        ("refuse", errors.InvalidRequestError, "must not be"),
    ],
)
async def test_a_failure_is_never_a_score(
    client: AsyncRankingClient, how: str, kind: type[errors.RewardsError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        await client.rank(
            "p", PICTURES[:3], rewards={"redness": 1, "failing": 1}, metadata={"how": how}, request_id="r"
        )
    assert type(caught.value) is kind
    assert caught.value.reward == "failing"
    assert caught.value.request_id == "r"


async def test_details_are_plain_json_or_a_failure(client: AsyncRankingClient) -> None:
    group = {"rewards": {"failing": 1}, "metadata": {"how": "odd details"}}
    with pytest.raises(errors.RewardError, match="not plain JSON") as caught:
        await client.rank("p", PICTURES[:2], **group, details=True)
    assert (caught.value.reward, caught.value.field) == ("failing", "images[0]")
    assert (await client.rank("p", PICTURES[:2], **group)).all_tied


async def test_only_the_group_at_fault_is_hurt(client: AsyncRankingClient) -> None:
    """Groups share batches; one that cannot be scored must not take the others of its batch with it."""
    bad = [client.rank("p", PICTURES[:3], rewards={"failing": 1}, metadata={"how": "raise"}) for _ in range(3)]
    good = [client.rank("p", PICTURES[:3], rewards={"failing": 1}) for _ in range(5)]
    results = await asyncio.gather(*bad, *good, return_exceptions=True)
    assert all(isinstance(result, errors.RewardError) for result in results[:3])
    assert all(isinstance(result, RankResponse) for result in results[3:])


async def test_groups_share_batches(service: serving.RunningService) -> None:
    async with AsyncRankingClient(service.handle_address, max_in_flight=16) as client:
        answers = await asyncio.gather(*(client.rank("p", PICTURES[:2], details=True) for _ in range(16)))
    batches = [answer.rewards["redness"].details[0]["batch"] for answer in answers]  # type: ignore[index]
    assert max(batches) > 2


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        ({"images": PICTURES[:1]}, errors.InvalidRequestError, "images"),
        ({"images": [PICTURES[0], b"no picture"]}, errors.InvalidImageError, "images[1]"),
        ({"images": [PICTURES[0], encode_png(PICTURES[1])[:60]]}, errors.InvalidImageError, "images[1]"),
        ({"rewards": {"sharpness": 1}}, errors.UnknownRewardError, "rewards"),
        ({"mixture": "none"}, errors.UnknownRewardError, "mixture"),
        ({"prompt": ""}, errors.InvalidRequestError, "prompt"),
        ({"pairs": PairOptions(count=3, strategy="extremes")}, errors.InvalidRequestError, "pairs.count"),
    ],
)
async def test_wrong_requests_say_what_is_wrong(
    client: AsyncRankingClient, change: dict[str, Any], kind: type[errors.RewardsError], field: str
) -> None:
    with pytest.raises(kind) as caught:
        await client.rank(**{"prompt": "p", "images": PICTURES[:4]} | change)
    assert type(caught.value) is kind
    assert caught.value.field == field


def multipart(request: str = '{"prompt": "p"}', images: int = 2) -> dict[str, Any]:
    parts = [("images", (f"{index}.png", encode_png(PICTURES[index % 24]), "image/png")) for index in range(images)]
    return {"files": [("request", (None, request, "application/json")), *parts]}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422),
        ({"json": {"prompt": "p", "images": ["QUJD", "QUJD"]}}, 422),
        ({"json": {"prompt": "p", "images": ["http://127.0.0.1/a.png"] * 2}}, 422),
        ({"json": {"prompt": "p"}}, 422),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 422),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 422),
        (multipart(request='{"prompt": "p", "seed": 1}'), 422),
        (multipart(request='{"prompt": "p", "rewards": {"redness": NaN}}'), 422),
        (multipart(images=300), 422),
        (multipart(images=0), 422),
        ({"files": {"images": b"x"}}, 422),
        ({"data": {"prompt": "p"}}, 415),
    ],
)
def test_http_refusals_are_problem_documents(
    service: serving.RunningService, sent: dict[str, Any], status: int
) -> None:
    response = httpx.post(f"{service.http_url}/v1/rank", **sent, timeout=30)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text


def test_plain_http(service: serving.RunningService) -> None:
    """What curl sees: base64 JSON and multipart agree, and the rest of the surface answers."""
    import base64

    texts = [base64.b64encode(encode_png(picture)).decode() for picture in PICTURES[:2]]
    url = service.http_url
    by_json = httpx.post(
        f"{url}/v1/rank", json={"prompt": "p", "images": texts}, headers={"x-request-id": "mine"}
    ).json()
    by_form = httpx.post(f"{url}/v1/rank", **multipart()).json()
    assert by_json["request_id"] == "mine"
    assert by_json["combined"] == by_form["combined"]
    assert httpx.get(f"{url}/health/live").status_code == 200
    assert httpx.get(f"{url}/openapi.json").json()["paths"].keys() >= {"/v1/rank", "/v1/models", "/health/ready"}
    missing = httpx.get(f"{url}/v1/nothing")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_grpc_health(service: serving.RunningService) -> None:
    with grpc.insecure_channel(address(service, "grpc").removeprefix("grpc://")) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        metadata = [("application", "ranking")]
        request = health_pb2.HealthCheckRequest()
        assert stub.Check(request, metadata=metadata, timeout=30).status == health_pb2.HealthCheckResponse.SERVING
        first = next(iter(stub.Watch(request, metadata=metadata, timeout=30)))
        assert first.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_api_keys(guarded: serving.RunningService, transport: str) -> None:
    for key in (None, "wrong"):
        async with AsyncRankingClient(address(guarded, transport), api_key=key) as client:
            with pytest.raises(errors.AuthenticationError):
                await client.rank("p", PICTURES[:2])
            with pytest.raises(errors.AuthenticationError):
                await client.models()
            assert await client.ready()  # a probe brings no key
    async with AsyncRankingClient(address(guarded, transport), api_key=KEY) as client:
        assert (await client.rank("p", PICTURES[:2])).order
        with pytest.raises(errors.RequestTooLargeError):
            await client.rank("p", PICTURES[np.arange(80) % 24])
        with pytest.raises(errors.InvalidImageError, match="at most 400 pixels"):
            await client.rank("p", np.zeros((2, 21, 20, 3), dtype=np.uint8))


def test_a_body_without_a_length_is_counted(guarded: serving.RunningService) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    response = httpx.post(f"{guarded.http_url}/v1/rank", content=chunks(), headers=headers, timeout=30)
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"


def test_the_synchronous_client_from_threads(service: serving.RunningService) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with RankingClient(address(service, "http")) as client, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.rank("p", PICTURES[:3]).order, range(8)))
        assert all(answer == answers[0] for answer in answers)
        with pytest.raises(errors.UnknownRewardError):
            client.rank("p", PICTURES[:3], mixture="none")
    with pytest.raises(errors.ServiceUnavailableError, match="closed"):
        client.models()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_overload_is_said_and_waited_out(service: serving.RunningService, transport: str) -> None:
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
    """Calls over all transports go on while a replica is killed; every one succeeds, with the right numbers."""
    clients = [
        AsyncRankingClient(address(service, name), retries=8, max_in_flight=2, timeout_s=200) for name in TRANSPORTS
    ]
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


async def test_a_hanging_reward_delays_nobody_else(service: serving.RunningService) -> None:
    async def hanging(client: AsyncRankingClient) -> None:
        with pytest.raises(errors.RewardTimeoutError, match="deadline of 4 s") as caught:
            await client.rank("p", PICTURES[:2], rewards={"hanging": 1, "redness": 1}, metadata={"how": "hang"})
        assert caught.value.reward == "hanging"

    clients = [AsyncRankingClient(address(service, name), retries=0) for name in TRANSPORTS]
    stuck = [asyncio.create_task(hanging(client)) for client in clients]
    await asyncio.gather(*(client.rank("p", PICTURES[:2]) for client in clients))
    assert not any(task.done() for task in stuck)  # those were answered while these are still stuck
    await asyncio.gather(*stuck)
    readiness = await clients[1].readiness()
    assert {name for name, state in readiness.rewards.items() if not state.ready} == {"hanging"}
    assert not await clients[2].ready()
    for client in clients:
        await client.close()


async def test_a_group_that_kills_replicas_is_given_up(service: serving.RunningService) -> None:
    async with AsyncRankingClient(service.handle_address, timeout_s=200, retries=0) as client:
        with pytest.raises(errors.RewardUnavailableError, match="went away 3 times") as caught:
            await client.rank("p", PICTURES[:2], rewards={"failing": 1}, metadata={"how": "die"})
        assert caught.value.reward == "failing"
        assert (await client.rank("p", PICTURES[:2], rewards={"failing": 1})).all_tied  # and its successor serves


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


def test_without_keys_nobody_else_reaches_grpc(
    service: serving.RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a Ray that others started Serve's gRPC listens on every interface; the one of these tests was told not to."""
    assert loopback.grpc_is_bound()
    monkeypatch.setattr(loopback, "grpc_is_kept", lambda: False)
    with pytest.raises(errors.ConfigError, match=r"gRPC listens on every interface .* and there are no API keys"):
        serving.start(config(), app_name="open", grpc_port=0)


def test_what_cannot_start_says_why(service: serving.RunningService) -> None:
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
