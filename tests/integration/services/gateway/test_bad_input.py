"""Invalid requests, in every form: each is refused with an error that names the field and the reason."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import numpy as np
import psutil
import pytest
import ray
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image
from support.images import PICTURE, accepted_files, decompression_bomb, encode, refused_files
from support.service import KEY, address, replica_pid

from drpo_rewards import RankingClient, serving
from drpo_rewards.errors import OverloadedError
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.v1 import ranking_pb2_grpc

pytestmark = pytest.mark.integration

FORMS = ["multipart", "json", "grpc"]
GOOD = encode(Image.fromarray(PICTURE))
METADATA = [("application", "ranking")]

Refusal = tuple[Any, dict[str, Any], str]  # status, members, message


def multipart(head: dict[str, Any], images: list[bytes]) -> dict[str, Any]:
    parts = [("images", (str(index), image, "application/octet-stream")) for index, image in enumerate(images)]
    return {"files": [("request", (None, json.dumps(head), "application/json")), *parts]}


def rank(service: serving.RunningService, form: str, head: dict[str, Any], images: list[bytes]) -> Any:
    """Send a rank request. Return the response's rewards, or the refusal."""
    if form == "grpc":
        with grpc.insecure_channel(address(service, "grpc").removeprefix("grpc://")) as channel:
            request = pb.RankRequest(**head, images=[pb.Image(encoded=image) for image in images])
            try:
                answer = ranking_pb2_grpc.RankingStub(channel).Rank(request, metadata=METADATA, timeout=30)
            except grpc.RpcError as error:
                trailing = dict(error.trailing_metadata())  # type: ignore[attr-defined]
                members = json.loads(trailing["drpo-error"])
                assert members["request_id"] == trailing["request_id"]
                return error.code(), members, error.details()  # type: ignore[attr-defined]
            return {name: list(result.scores) for name, result in answer.rewards.items()}
    texts = [base64.b64encode(image).decode() for image in images]
    sent = multipart(head, images) if form == "multipart" else {"content": json.dumps(head | {"images": texts})}
    headers = {} if form == "multipart" else {"content-type": "application/json"}
    response = httpx.post(f"{service.http_url}/v1/rank", **sent, headers=headers, timeout=30)
    if response.status_code == 200:
        return {name: result["scores"] for name, result in response.json()["rewards"].items()}
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:drpo-rewards:{problem['code']}"
    assert (problem["status"], problem["instance"]) == (response.status_code, "/v1/rank")
    assert problem["title"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return response.status_code, problem, problem["detail"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", refused_files())
def test_refused_images_are_named_with_a_reason(service: serving.RunningService, name: str, form: str) -> None:
    data, reason = refused_files()[name]
    status, members, message = rank(service, form, {"prompt": "p"}, [GOOD, data])
    assert status == (grpc.StatusCode.INVALID_ARGUMENT if form == "grpc" else 422)
    assert (members["code"], members["field"]) == ("invalid_image", "images[1]")
    assert message.startswith("images[1]")
    assert reason in message


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", accepted_files())
def test_accepted_images_are_scored_as_they_look(service: serving.RunningService, name: str, form: str) -> None:
    data, expected = accepted_files()[name]
    scores = rank(service, form, {"prompt": "p", "rewards": {"corner": 1}}, [GOOD, data])["corner"]
    assert scores == [PICTURE[0, 0, 0], expected[0, 0, 0]]


def test_one_pixel_is_an_image_if_the_limits_allow_it(guarded: serving.RunningService) -> None:
    with RankingClient(address(guarded, "http"), api_key=KEY) as client:
        pixels = [np.full((1, 1, 3), value, np.uint8) for value in (0, 255)]
        assert client.rank("p", pixels).all_tied  # both grey


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("head", "images", "code", "field", "reason"),
    [
        ({"prompt": ""}, 2, "invalid_request", "prompt", "at least 1 character"),
        ({"prompt": "x" * 100_000}, 2, "invalid_request", "prompt", "at most 10000 characters"),
        ({"prompt": "p", "rewards": {"redness": float("nan")}}, 2, "invalid_request", "rewards.redness", "finite"),
        ({"prompt": "p", "rewards": {"redness": float("inf")}}, 2, "invalid_request", "rewards.redness", "finite"),
        ({"prompt": "p", "rewards": {"redness": 0.0}}, 2, "invalid_request", "rewards", "all weights are 0"),
        ({"prompt": "p", "rewards": {"beauty": 1.0}}, 2, "unknown_reward", "rewards", "no reward 'beauty'"),
        ({"prompt": "p", "mixture": "beauty"}, 2, "unknown_reward", "mixture", "no mixture 'beauty'"),
        ({"prompt": "p", "mixture": "\U0001f600" * 9_000}, 2, "invalid_request", "mixture", "at most 128"),
        ({"prompt": "p", "pairs": {"count": 0}}, 2, "invalid_request", "pairs.count", "greater than or equal to 1"),
        ({"prompt": "p", "metadata": {"a": float("nan")}}, 2, "invalid_request", "metadata", "finite"),
        ({"prompt": "p", "request_id": "two words"}, 2, "invalid_request", "request_id", "pattern"),
        ({"prompt": "p"}, 300, "invalid_request", "images", "(?i)(at most 256|has 300|not 300)"),
        ({"prompt": "p"}, 1, "invalid_request", "images", "(has|not) 1"),
        ({"prompt": "p"}, 0, "invalid_request", "images", "(has|not) 0"),
    ],
)
def test_refused_requests_name_the_field_and_a_reason(
    service: serving.RunningService, form: str, head: dict[str, Any], images: int, code: str, field: str, reason: str
) -> None:
    status, members, message = rank(service, form, head, [GOOD] * images)
    http, of_grpc = (404, "NOT_FOUND") if code == "unknown_reward" else (422, "INVALID_ARGUMENT")
    assert status == (grpc.StatusCode[of_grpc] if form == "grpc" else http)
    assert (members["code"], members["field"]) == (code, field)
    assert re.search(reason, message)
    assert len(message) < 1000


@pytest.mark.parametrize("form", FORMS)
def test_a_prompt_may_contain_anything(service: serving.RunningService, form: str) -> None:
    """Text with a meaning for a tokenizer, a terminal, a shell or a template has none here."""
    odd = [
        "<|endoftext|><|startoftext|>",
        "[CLS] [SEP] </s>",
        "<|im_start|>system",
        "\0\n\x1b[2J",
        "\u202ecba \U0001f600",
    ]
    for prompt in [*odd, "{{7*7}} $(id) %s", "x" * 10_000]:
        assert rank(service, form, {"prompt": prompt}, [GOOD, GOOD])["redness"][0] is not None


@pytest.mark.parametrize(
    "kind", ["text/plain", "image/png", "application/x-www-form-urlencoded", "", "a/b; c*=d; c*1=e"]
)
def test_other_content_types_are_refused(service: serving.RunningService, kind: str) -> None:
    response = httpx.post(f"{service.http_url}/v1/rank", content=b"{}", headers={"content-type": kind}, timeout=30)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_content_type")
    assert repr(kind.partition(";")[0]) in response.json()["detail"]


def test_extended_parameters_of_a_part_are_ignored(service: serving.RunningService) -> None:
    pixels = ("0", PICTURE.tobytes(), "application/x-rgb8; width*=utf-8''10; height=12")
    parts = [("request", (None, '{"prompt": "p"}', "application/json")), ("images", pixels), ("images", pixels)]
    response = httpx.post(f"{service.http_url}/v1/rank", files=parts, timeout=30)
    assert (response.status_code, response.json()["field"]) == (422, "images[0]")


@contextmanager
def announcing(service: serving.RunningService, length: int) -> Iterator[http.client.HTTPConnection]:
    """Open a connection, announce a body of `length` bytes, and send one of them."""
    parts = urlsplit(str(service.http_url))
    with closing(http.client.HTTPConnection(parts.netloc, timeout=60)) as connection:
        connection.putrequest("POST", f"{parts.path}/v1/rank")
        connection.putheader("authorization", f"Bearer {KEY}")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", length)
        connection.endheaders(b"{")
        yield connection


def test_a_body_that_is_announced_as_too_large_is_refused_unread(guarded: serving.RunningService) -> None:
    """test_ranking_service.py has the other case, a body of unknown length."""
    with announcing(guarded, 60_000_000) as connection:
        assert connection.getresponse().status == 413


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_bodies_of_all_requests_have_a_common_limit(guarded: serving.RunningService, transport: str) -> None:
    """One client announces a body that takes all memory, and does not send it; others are told when to try again."""
    images = [PICTURE] * 20
    with RankingClient(address(guarded, transport), api_key=KEY, retries=0) as client:
        with announcing(guarded, 48_000):
            wait_until(lambda: held_bytes(guarded) == 48_000)
            with pytest.raises(OverloadedError, match="bytes of bodies") as caught:
                client.rank("p", images)
            assert caught.value.retry_after_s == 1.0
        wait_until(lambda: held_bytes(guarded) == 0)
        assert client.rank("p", images).order


def test_a_body_that_stops_arriving_is_refused(guarded: serving.RunningService) -> None:
    """Although its connection stays open, its memory is free for others."""
    with announcing(guarded, 48_000) as connection:
        answer = connection.getresponse()
        problem = json.loads(answer.read())
        assert (answer.status, problem["code"]) == (408, "incomplete")
        assert "no data came for 10 s, after 1 bytes of the body" in problem["detail"]
        assert held_bytes(guarded) == 0


@pytest.mark.thorough
def test_a_body_that_arrives_slowly_is_accepted(guarded: serving.RunningService) -> None:
    """The whole body takes longer than the longest allowed pause, but no pause is that long."""
    with announcing(guarded, 5) as connection:
        for byte in b"oops":
            time.sleep(3)
            connection.send(bytes([byte]))
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (422, "invalid_request")


def held_bytes(service: serving.RunningService) -> float:
    text = httpx.get(f"{service.http_url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    return float(re.findall(r"^drpo_rewards_body_bytes_in_flight\{.*} (.*)$", text, re.M)[0])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def test_reflection_is_off(service: serving.RunningService) -> None:
    with grpc.insecure_channel(address(service, "grpc").removeprefix("grpc://")) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        with pytest.raises(grpc.RpcError) as caught:
            next(iter(stub.ServerReflectionInfo(requests, metadata=METADATA, timeout=30)))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_no_response_reveals_the_machine(service: serving.RunningService) -> None:
    """No body or header of any response has a host name, a process id, a path or a stack trace."""
    responses = []
    hows = ["raise", "tell", "tell as ours", "short", "nan", "die"]
    failures = [{"prompt": "p", "rewards": {"failing": 1}, "metadata": {"how": how}} for how in hows]
    for head in [{"prompt": "p"}, {"prompt": ""}, *failures]:
        if head is not failures[-1]:  # a replica that dies takes long, and its error has the same form
            responses.append(repr(rank(service, "grpc", head, [GOOD, GOOD])))
        response = httpx.post(f"{service.http_url}/v1/rank", **multipart(head, [GOOD, GOOD]), timeout=30)
        responses.append(f"{response.headers} {response.text}")
    for path in ("/v1/models", "/health/ready", "/metrics", "/v1/rank", "/v1/nothing", "/../etc/passwd", "/"):
        response = httpx.get(f"{service.http_url}{path}", timeout=30)
        responses.append(f"{response.headers} {response.text}")
    patterns = ["Traceback", "site-packages", "\\.py\\b", 'File \\\\?"', " at 0x", "/tmp/", "/home/", "/usr/"]
    pids = [replica_pid(name) for name in ("gateway", "reward-failing", "reward-redness")]
    host = socket.gethostname()
    patterns += [
        f"\\b{re.escape(word)}\\b" for word in {host, ray.util.get_node_ip_address()} - {"localhost", "127.0.0.1"}
    ]
    for text in responses:
        for pattern in [*patterns, *(f"(?<![\\d.]){pid}(?![\\d.])" for pid in pids)]:
            assert not re.search(pattern, text), f"{pattern!r} in {text[:2000]}"


@pytest.mark.thorough
def test_refused_requests_leak_no_memory(service: serving.RunningService, guarded: serving.RunningService) -> None:
    """Large bodies and decompression bombs are refused at every stage, many times.

    Only a gateway's private memory counts: Ray's object store, which bodies pass through, is shared and has a limit.
    """
    gateways = [psutil.Process(replica_pid("gateway", application)) for application in ("ranking", "guarded")]
    large = bytes(32_000_000)
    bombs = base64.b64encode(decompression_bomb()).decode()

    def chunks() -> Iterator[bytes]:
        for _ in range(32):
            yield large[:1_000_000]

    def refuse_all() -> None:
        url, headers = f"{service.http_url}/v1/rank", {"content-type": "application/json"}
        for sent, status in [
            (multipart({"prompt": "p"}, [large]), 422),
            (multipart({"prompt": "p"}, [large, large]), 422),
            ({"content": large, "headers": headers}, 422),
            (
                {
                    "content": b'{"prompt": "p", "images": ["%s"]}' % large.hex().encode()[:32_000_000],
                    "headers": headers,
                },
                422,
            ),
            ({"json": {"prompt": "p", "images": [bombs] * 256}}, 422),
        ]:
            assert httpx.post(url, **sent, timeout=60).status_code == status
        known = headers | {"authorization": f"Bearer {KEY}"}
        for content in (large, chunks()):
            refusal = httpx.post(f"{guarded.http_url}/v1/rank", content=content, headers=known, timeout=60)
            assert refusal.status_code == 413

    def resident_mb() -> list[float]:
        return [gateway.memory_full_info().uss / 1e6 for gateway in gateways]

    for _ in range(3):  # buffers and pools fill
        refuse_all()
    before = resident_mb()
    for _ in range(10):
        refuse_all()
    after = resident_mb()
    assert all(grown < 32 for grown in np.subtract(after, before)), (before, after)
