"""Requests generated from the OpenAPI document, and damaged valid ones: every response is a documented one.

With the 1,000 damaged files of tests/unit/services/api/test_images.py these are over 2,500 cases. Rewards do not fail
here, so no status may be 500 or more, and no response may take longer than a client waits.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.service import PICTURES, address

from drpo_rewards import serving
from drpo_rewards.api.contract import Problem
from drpo_rewards.api.images import encode_png
from drpo_rewards.operations import RANK
from drpo_rewards.operations.rank import RankOptions

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

CASES = {"/v1/rank": 350, "/v1/score": 300, "/v1/compare": 200, "/v1/rerank": 300}
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
TIMEOUT_S = 30
REFUSALS = {404, 413, 415, 422}
EXPECTED = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}

FILES = [encode_png(picture) for picture in PICTURES[:4]]
TEXTS = [base64.b64encode(file).decode() for file in FILES]
# Some of the generated images are real pictures, so that some requests succeed.
schemathesis.openapi.format("byte", st.sampled_from(TEXTS) | st.text(max_size=20))
schemathesis.openapi.format("binary", st.sampled_from(FILES) | st.binary(max_size=60))
schemathesis.openapi.format("uri", st.sampled_from(TEXTS).map("data:image/png;base64,{}".format) | st.text(max_size=20))


def examples(count: int) -> settings:
    """Return settings for this many cases, which are the same in every run."""
    unhealthy = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=unhealthy)


@pytest.fixture(scope="module")
def document(service: serving.RunningService) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{service.http_url}/openapi.json")


@pytest.fixture(scope="module")
def http(service: serving.RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=str(service.http_url), timeout=TIMEOUT_S, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("path", CASES)
def test_every_response_is_documented(document: schemathesis.BaseSchema, http: httpx.Client, path: str) -> None:
    seen: Counter[int] = Counter()
    operation = document[path]["POST"]
    written = http.get("/openapi.json").json()
    body = written["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    allowed = Draft202012Validator({**body, "components": written["components"]})
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @examples(CASES[path])
    @given(case=right | right | wrong)
    def check(case: Case) -> None:
        response = case.call(timeout=TIMEOUT_S)
        case.validate_response(response, checks=CHECKS)
        seen[response.status_code] += 1
        if response.status_code == 200 and case.media_type == "application/json":
            assert allowed.is_valid(case.body)  # no accepted body violates the document

    check()
    # Some requests must succeed. Their number depends on the constants that hypothesis finds in our code.
    assert seen[200] >= CASES[path] / 50
    assert seen[422]
    assert max(seen) < 500


@pytest.mark.parametrize("path", ["/v1/models", "/health/live", "/health/ready", "/metrics"])
def test_every_response_of_a_get_route_is_documented(document: schemathesis.BaseSchema, path: str) -> None:
    case = document[path]["GET"].Case()
    case.validate_response(case.call(timeout=TIMEOUT_S), checks=CHECKS)


def valid_bodies() -> list[tuple[str, str, bytes]]:
    """Return path, content type and body of valid requests."""
    images = [{"image": f"data:image/png;base64,{text}"} for text in TEXTS]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/rank": {"prompt": "p", "images": TEXTS, "rewards": {"redness": 1.5}, "pairs": {"count": 2}},
        "/v1/score": {"groups": [{"prompt": "p", "images": TEXTS, "metadata": {"a": [1, None]}}]},
        "/v1/rerank": {"query": "p", "documents": images, "top_n": 2, "return_documents": True},
    }
    sent = [(path, "application/json", json.dumps(body).encode()) for path, body in bodies.items()]
    parts: list[Any] = [("request", (None, '{"prompt": "p"}', "application/json"))]
    parts += [("images", (f"{number}.png", file, "image/png")) for number, file in enumerate(FILES)]
    pixels = PICTURES[0].tobytes()
    parts += [("images", ("4.rgb8", pixels, "application/x-rgb8; width=16; height=16"))]
    form = httpx.Request("POST", "http://any", files=parts, headers={"content-type": "multipart/form-data; boundary=b"})
    return [*sent, ("/v1/rank", form.headers["content-type"], form.read())]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Replace, remove or repeat a few parts of `data`."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(begin + 40, len(data))))
        middle = draw(st.binary(max_size=8) | st.just(data[begin:end] * 2) | st.sampled_from([b"\r\n", b"--b", b'"']))
        data = data[:begin] + middle + data[end:]
    return data


def test_damaged_bodies_never_cause_a_server_error(http: httpx.Client) -> None:
    seen: Counter[int] = Counter()

    @examples(300)
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


def test_damaged_messages_never_cause_a_server_error(service: serving.RunningService) -> None:
    seen: Counter[grpc.StatusCode] = Counter()
    options = RankOptions(prompt="p", rewards={"redness": 1.5}, metadata={"a": [1, None, {"b": 0.5}]})
    right = RANK.request_to_proto(options, [*FILES, PICTURES[0]]).SerializeToString()
    with grpc.insecure_channel(address(service, "grpc").removeprefix("grpc://")) as channel:
        rank = channel.unary_unary("/drpo.rewards.v1.Ranking/Rank")

        @examples(200)
        @given(message=damaged(right))
        def check(message: bytes) -> None:
            call = rank.future(message, metadata=[("application", "ranking")], timeout=TIMEOUT_S)
            seen[call.code()] += 1
            # Serve parses the message before the service does, and its status is UNKNOWN if that fails.
            unread = call.code() is grpc.StatusCode.UNKNOWN and "DecodeError" in call.details()
            assert unread or call.code() in EXPECTED, call.details()

        check()
    assert seen[grpc.StatusCode.OK]
    assert seen[grpc.StatusCode.INVALID_ARGUMENT]
