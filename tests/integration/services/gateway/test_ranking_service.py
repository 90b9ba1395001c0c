"""The ranking service on a real Ray Serve, reached over each of its three transports."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from support.service import CONFIG, KEY, PICTURES, REDS, TRANSPORTS, address, timeless

from drpo_rewards import AsyncRankingClient, RankingClient, RankResponse, errors, serving
from drpo_rewards.api.contract import PairOptions
from drpo_rewards.api.images import encode_png

pytestmark = pytest.mark.integration


async def test_three_transports_give_the_same_answer(service: serving.RunningService) -> None:
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
    assert answer.rewards["darkness"].weight == pytest.approx(-1 / 3)  # lower scores are better
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


async def test_large_groups_arrive(client: AsyncRankingClient) -> None:
    """The group is larger than Serve's messages and than a batch."""
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
    with pytest.raises(
        errors.RewardError, match=r"details of images\[0\] that cannot be sent: the dict must be plain JSON"
    ) as caught:
        await client.rank("p", PICTURES[:2], **group, details=True)
    assert (caught.value.reward, caught.value.field) == ("failing", "images[0]")
    assert (await client.rank("p", PICTURES[:2], **group)).all_tied


async def test_only_the_group_at_fault_fails(client: AsyncRankingClient) -> None:
    """A group that cannot be scored must not make the other groups of its batch fail."""
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
async def test_invalid_requests_say_what_is_wrong(
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
    """Base64 JSON and multipart give the same response, and the other routes respond."""
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


HEALTH = "/grpc.health.v1.Health"


def test_grpc_health(service: serving.RunningService) -> None:
    with grpc.insecure_channel(address(service, "grpc").removeprefix("grpc://")) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        metadata = [("application", "ranking")]
        request = health_pb2.HealthCheckRequest()
        assert stub.Check(request, metadata=metadata, timeout=30).status == health_pb2.HealthCheckResponse.SERVING
        first = next(iter(stub.Watch(request, metadata=metadata, timeout=30)))
        assert first.status == health_pb2.HealthCheckResponse.SERVING
        check, watch = channel.unary_unary(f"{HEALTH}/Check"), channel.unary_stream(f"{HEALTH}/Watch")
        for call in (check, lambda data, timeout: next(watch(data, timeout=timeout))):
            with pytest.raises(grpc.RpcError, match=r"(?s)INVALID_ARGUMENT.*no.* of the type HealthCheckRequest"):
                call(b"\xff\xff", timeout=30)
        with pytest.raises(grpc.RpcError, match=r"(?s)NOT_FOUND.*no service 'none'"):
            stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=30)


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_api_keys(guarded: serving.RunningService, transport: str) -> None:
    for key in (None, "wrong"):
        async with AsyncRankingClient(address(guarded, transport), api_key=key) as client:
            with pytest.raises(errors.AuthenticationError):
                await client.rank("p", PICTURES[:2])
            with pytest.raises(errors.AuthenticationError):
                await client.models()
            assert await client.ready()  # a probe needs no key
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
