"""Generated requests: every response is a documented one, and no process ends.

Rewards do not fail here, so no status may be 500 or more, and no response may take longer than a client waits.
`make fuzz` makes 10,000 calls, and also compares how long the calls of a neighbour take.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support import fuzz
from support.fuzz import damaged, examples
from support.neighbour import neighbour, read_seconds
from support.processes import children
from support.service import PICTURES, address

from drpo_rewards import serving
from drpo_rewards.api.contract import Problem
from drpo_rewards.api.images import encode_png
from drpo_rewards.operations import COMPARE, OPERATIONS, RANK, RERANK, SCORE
from drpo_rewards.operations.rank import RankOptions
from drpo_rewards.v1 import ranking_pb2 as pb

pytestmark = pytest.mark.integration

# The shares of the calls. The rest is for damaged and generated messages, and for pictures.
SHARES = {"/v1/rank": 0.15, "/v1/score": 0.12, "/v1/compare": 0.08, "/v1/rerank": 0.15}
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
TIMEOUT_S = 30
REFUSALS = {403, 404, 413, 415, 422}
EXPECTED = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}

FILES = [encode_png(picture) for picture in PICTURES[:4]]
TEXTS = [base64.b64encode(file).decode() for file in FILES]
# Most of the generated images are real pictures, so that some requests succeed.
URIS = st.sampled_from(TEXTS).map("data:image/png;base64,{}".format)
schemathesis.openapi.format("byte", st.sampled_from(TEXTS) | st.sampled_from(TEXTS) | st.text(max_size=20))
schemathesis.openapi.format("binary", st.sampled_from(FILES) | st.sampled_from(FILES) | st.binary(max_size=60))
schemathesis.openapi.format("uri", URIS | URIS | st.text(max_size=20))


def find_processes() -> set[int]:
    """The processes of the replicas and of the controller of Ray Serve."""
    return {process.pid for process in children("^ray::Serve")}


@pytest.fixture(scope="module", autouse=True)
def no_process_ends(service: serving.RunningService) -> Iterator[None]:
    before = find_processes()
    assert len(before) > 5
    yield
    assert find_processes() == before


@pytest.fixture(scope="module")
def document(service: serving.RunningService) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{service.http_url}/openapi.json")


@pytest.fixture(scope="module")
def http(service: serving.RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=str(service.http_url), timeout=TIMEOUT_S, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("path", SHARES)
def test_every_response_is_documented(document: schemathesis.BaseSchema, http: httpx.Client, path: str) -> None:
    seen: Counter[int] = Counter()
    operation = document[path]["POST"]
    written = http.get("/openapi.json").json()
    body = written["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    allowed = Draft202012Validator({**body, "components": written["components"]})
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @examples(SHARES[path])
    @given(case=right | right | wrong)
    def check(case: Case) -> None:
        response = case.call(timeout=TIMEOUT_S)
        case.validate_response(response, checks=CHECKS)
        seen[response.status_code] += 1
        if response.status_code == 200 and case.media_type == "application/json":
            assert allowed.is_valid(case.body)  # no accepted body violates the document

    check()
    # Some requests must succeed. Their number depends on the constants that hypothesis finds in our code.
    assert seen[200] >= seen.total() / 100
    assert seen[422]
    assert max(seen) < 500


@pytest.mark.parametrize("path", ["/v1/models", "/health/live", "/health/ready", "/metrics"])
def test_every_response_of_a_get_route_is_documented(document: schemathesis.BaseSchema, path: str) -> None:
    case = document[path]["GET"].Case()
    case.validate_response(case.call(timeout=TIMEOUT_S), checks=CHECKS)


@pytest.fixture(scope="module", autouse=True)
def no_neighbour_waits(
    service: serving.RunningService, http: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Beside generated requests, a neighbour's calls take less than three times as long as beside valid ones."""
    if fuzz.CALLS < 10_000:
        yield
        return
    folder = tmp_path_factory.mktemp("neighbour")
    beside_valid, beside_generated = folder / "valid", folder / "generated"
    with neighbour(str(service.http_url), beside_valid):
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            for path, kind, body in valid_bodies():
                http.post(path, content=body, headers={"content-type": kind}).raise_for_status()
    with neighbour(str(service.http_url), beside_generated):
        yield
    usual, beside = (np.quantile(read_seconds(file), [0.5, 0.95]) for file in (beside_valid, beside_generated))
    print(f"\na neighbour's calls, p50 and p95 in ms: {usual * 1e3} beside valid requests, {beside * 1e3} beside these")
    assert (beside < 3 * usual).all()


def valid_bodies() -> list[tuple[str, str, bytes]]:
    """Return path, content type and body of valid requests."""
    images = [{"image": f"data:image/png;base64,{text}"} for text in TEXTS]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/rank": {"prompt": "p", "images": TEXTS, "rewards": {"redness": 1.5}, "pairs": {"count": 2}},
        "/v1/score": {"groups": [{"prompt": "p", "images": TEXTS, "metadata": {"a": [1, None]}}]},
        "/v1/rerank": {"query": "p", "documents": images, "top_n": 2, "return_documents": True},
        "/rerank": {"query": {"text": "p"}, "texts": [image["image"] for image in images], "return_text": True},
        "/infinity/rerank": {"query": "p", "documents": {"content": images}, "return_documents": True, "top_k": 1},
        "/score": {"text_1": ["p"], "text_2": [f"i: 0\n\n{image['image']}" for image in images]},
    }
    sent = [(path, "application/json", json.dumps(body).encode()) for path, body in bodies.items()]
    parts: list[Any] = [("request", (None, '{"prompt": "p"}', "application/json"))]
    parts += [("images", (f"{number}.png", file, "image/png")) for number, file in enumerate(FILES)]
    pixels = PICTURES[0].tobytes()
    parts += [("images", ("4.rgb8", pixels, "application/x-rgb8; width=16; height=16"))]
    form = httpx.Request("POST", "http://any", files=parts, headers={"content-type": "multipart/form-data; boundary=b"})
    return [*sent, ("/v1/rank", form.headers["content-type"], form.read())]


def test_damaged_bodies_never_cause_a_server_error(http: httpx.Client) -> None:
    seen: Counter[int] = Counter()

    @examples(0.15)
    @given(sent=st.sampled_from(valid_bodies()), data=st.data())
    def check(sent: tuple[str, str, bytes], data: st.DataObject) -> None:
        path, kind, body = sent
        if (data.draw(st.booleans()) and "multipart" in kind) or data.draw(st.integers(0, 4)):
            body = data.draw(damaged(body))
        else:
            head = data.draw(damaged(kind.encode()))
            kind = bytes(byte for byte in head if 32 <= byte != 127).decode("latin-1").strip()
        response = http.post(path, content=body, headers={"content-type": kind.encode("latin-1")})
        seen[response.status_code] += 1
        if response.status_code != 200:
            assert response.status_code in REFUSALS, response.text
            assert response.headers["content-type"] == "application/problem+json"
            assert Problem.model_validate_json(response.content).status == response.status_code

    check()
    assert seen[200]
    assert seen[415]
    assert seen[422]


def test_generated_files_are_pictures_or_refused(http: httpx.Client) -> None:
    seen: Counter[int] = Counter()

    @examples(0.1)
    @given(files=st.lists(fuzz.pictures(), min_size=2, max_size=3))
    def check(files: list[bytes]) -> None:
        parts: list[Any] = [("request", (None, '{"prompt": "p"}', "application/json"))]
        parts += [("images", (str(number), file, "image/png")) for number, file in enumerate(files)]
        response = http.post("/v1/rank", files=parts)
        seen[response.status_code] += 1
        if response.status_code == 200:
            RANK.response.model_validate_json(response.content)
        else:
            problem = Problem.model_validate_json(response.content)
            assert (problem.status, problem.code) == (422, "invalid_image"), problem
            assert (problem.field or "").startswith("images[")

    check()
    assert set(seen) == {200, 422}


@pytest.fixture(scope="module")
def channel(service: serving.RunningService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address(service, "grpc").removeprefix("grpc://")) as opened:
        yield opened


def call(channel: grpc.Channel, method: str, message: bytes) -> Any:
    """Call a gRPC method. Return the finished call, whose status must be an expected one."""
    metadata = [("application", "ranking")]
    finished = channel.unary_unary(f"/drpo.rewards.v1.Ranking/{method}").future(
        message, metadata=metadata, timeout=TIMEOUT_S
    )
    assert finished.code() in EXPECTED, finished.details()
    return finished


def test_damaged_messages_never_cause_a_server_error(channel: grpc.Channel) -> None:
    seen: Counter[grpc.StatusCode] = Counter()
    options = RankOptions(prompt="p", rewards={"redness": 1.5}, metadata={"a": [1, None, {"b": 0.5}]})
    right = RANK.request_to_proto(options, [*FILES, PICTURES[0]]).SerializeToString()

    @examples(0.1)
    @given(message=damaged(right))
    def check(message: bytes) -> None:
        seen[call(channel, "Rank", message).code()] += 1

    check()
    assert seen[grpc.StatusCode.OK]
    assert seen[grpc.StatusCode.INVALID_ARGUMENT]


KINDS = {
    RANK.name: pb.RankRequest,
    SCORE.name: pb.ScoreRequest,
    COMPARE.name: pb.CompareRequest,
    RERANK.name: pb.RerankRequest,
}
REWARDS = st.sampled_from(["redness", "darkness", "judge"])
PIXELS = np.ascontiguousarray(PICTURES[0])
IMAGES = [pb.Image(encoded=file) for file in FILES]
IMAGES.append(pb.Image(rgb8=pb.Rgb8(width=16, height=16, data=PIXELS.tobytes())))
KNOWN = {
    "prompt": st.just("p"),
    "query": st.just("p"),
    "mixture": st.sampled_from(["", "both"]),
    "model": st.sampled_from(["", "both", "redness", "judge"]),
    "key": REWARDS,
    "rewards": REWARDS,
    "request_id": st.sampled_from(["", "r"]),
    "Image": st.sampled_from(IMAGES),
}


@pytest.mark.parametrize("name", KINDS)
def test_generated_messages_never_cause_a_server_error(channel: grpc.Channel, name: str) -> None:
    seen: Counter[grpc.StatusCode] = Counter()
    operation = OPERATIONS[name]

    @examples(0.0375)
    @given(message=fuzz.messages(KINDS[name], KNOWN))
    def check(message: Any) -> None:
        finished = call(channel, str(operation.rpc_name), message.SerializeToString())
        seen[finished.code()] += 1
        if finished.code() is grpc.StatusCode.OK:
            operation.response_from_proto(operation.response_message.FromString(finished.result()))

    check()
    assert seen[grpc.StatusCode.INVALID_ARGUMENT]
