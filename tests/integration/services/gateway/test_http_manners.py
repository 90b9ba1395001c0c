"""What HTTP permits and clients of other languages send: it is taken, or refused with the right status and words."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from support.service import KEY, PICTURES, REDS, address

from drpo_rewards import serving
from drpo_rewards.api.contract import Problem
from drpo_rewards.api.images import encode_png
from drpo_rewards.operations import RANK
from drpo_rewards.operations.rank import RankOptions
from drpo_rewards.serving.gateway.problem_documents import is_request_id

pytestmark = pytest.mark.integration

FILES = [encode_png(picture) for picture in PICTURES[:2]]
BODY = json.dumps({"prompt": "é", "images": [base64.b64encode(file).decode() for file in FILES]}).encode()
JSON = {"content-type": "application/json"}
MARK = b"\xef\xbb\xbf"


@pytest.fixture(scope="module")
def http(service: serving.RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=str(service.http_url), timeout=30, trust_env=False) as client:
        yield client


def rank(http: httpx.Client, content: bytes = BODY, **headers: str) -> httpx.Response:
    return http.post("/v1/rank", content=content, headers=JSON | {k.replace("_", "-"): v for k, v in headers.items()})


def scores(response: httpx.Response) -> list[float]:
    assert response.status_code == 200, response.text
    return response.json()["rewards"]["redness"]["scores"]


def problem(response: httpx.Response) -> Problem:
    assert response.headers["content-type"] == "application/problem+json"
    assert is_request_id(response.headers["x-request-id"])
    found = Problem.model_validate_json(response.content)
    assert found.request_id == response.headers["x-request-id"]
    return found


GZIP = gzip.compress(BODY)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", GZIP),
        ("X-GZip", GZIP),
        ("gzip", gzip.compress(BODY[:100]) + gzip.compress(BODY[100:])),
        ("identity, gzip", GZIP),
        ("identity", BODY),
        ("", BODY),
    ],
)
def test_compressed_bodies_are_read(http: httpx.Client, encoding: str, content: bytes) -> None:
    assert scores(rank(http, content, content_encoding=encoding)) == pytest.approx(REDS[:2].tolist())


def test_a_compressed_form_is_read(http: httpx.Client) -> None:
    parts: list[Any] = [("request", (None, MARK + b'{"prompt": "p"}', "application/json"))]
    parts += [("images", (str(number), file, "image/png")) for number, file in enumerate(FILES)]
    form = httpx.Request("POST", "http://any", files=parts)
    headers = {"content-type": form.headers["content-type"].replace("multipart/form-data", "Multipart/Form-Data")}
    response = http.post("/v1/rank", content=gzip.compress(form.read()), headers=headers | {"content-encoding": "gzip"})
    assert scores(response) == pytest.approx(REDS[:2].tolist())


@pytest.mark.parametrize(
    ("encoding", "content", "status", "reason"),
    [
        ("gzip", BODY, 422, "not valid gzip"),
        ("gzip", GZIP[:-9], 422, "ends too early"),
        ("gzip", b"", 422, "ends too early"),
        ("gzip", GZIP + b"more", 422, "not valid gzip"),
        ("deflate", zlib.compress(BODY), 415, "'deflate'"),
        ("br", BODY, 415, "'br'"),
        ("gzip, gzip", gzip.compress(GZIP), 415, "send the body as it is, or as gzip"),
        ("gzip", gzip.compress(b"") * 20_000, 422, "more than 10000 members"),
    ],
)
def test_other_encodings_are_refused(
    http: httpx.Client, encoding: str, content: bytes, status: int, reason: str
) -> None:
    response = rank(http, content, content_encoding=encoding)
    assert (response.status_code, problem(response).status) == (status, status)
    assert reason in problem(response).detail
    assert status != 415 or response.headers["accept-encoding"] == "gzip"


def test_each_encoding_header_counts(http: httpx.Client) -> None:
    headers = [(b"content-encoding", b"gzip"), (b"content-encoding", b"br"), *_json_header()]
    response = http.post("/v1/rank", content=GZIP, headers=headers)
    assert (response.status_code, problem(response).detail[:27]) == (415, "content encoding 'gzip, br'")


def test_a_small_body_may_not_become_a_large_one(guarded: serving.RunningService) -> None:
    """Here a body may have 50 kB; this one has 20 kB, and 20 MB when it is decompressed."""
    headers = JSON | {"content-encoding": "gzip", "authorization": f"Bearer {KEY}"}
    response = httpx.post(f"{guarded.http_url}/v1/rank", content=gzip.compress(bytes(20_000_000)), headers=headers)
    assert response.status_code == 413
    assert "at most 50000" in problem(response).detail


def test_a_byte_order_mark_is_skipped(http: httpx.Client) -> None:
    assert scores(rank(http, MARK + BODY)) == pytest.approx(REDS[:2].tolist())


@pytest.mark.parametrize(
    "kind", ["Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"; version=1', "application/json;"]
)
def test_content_types_in_any_case_with_parameters(http: httpx.Client, kind: str) -> None:
    assert scores(rank(http, content_type=kind))


@pytest.mark.parametrize("content", [b"", b" ", MARK, b"[]", b"null", '{"prompt": "é"}'.encode("utf-16"), b"\xff"])
def test_bodies_that_are_no_json_object(http: httpx.Client, content: bytes) -> None:
    response = rank(http, content)
    assert (response.status_code, problem(response).code) == (422, "invalid_request")


def test_a_key_that_comes_twice_counts_once(http: httpx.Client) -> None:
    assert scores(rank(http, b'{"prompt": "", ' + BODY[1:]))


@pytest.mark.parametrize(
    "path", ["/v1/rank/", "/v1/rank", "/v1/rank//", "//v1/rank", "/v1//rank", "/ranking//v1/rank/"]
)
def test_needless_slashes_change_nothing(http: httpx.Client, path: str) -> None:
    assert scores(http.post(str(http.base_url).rstrip("/") + path, content=BODY, headers=JSON))


@pytest.mark.parametrize(
    "path",
    ["/v1/models/", "/health/live/", "/health/", "/metrics/", "/openapi.json/", "/docs/", "/", "/page/page.css/"],
)
def test_head_is_answered_like_get(http: httpx.Client, path: str) -> None:
    whole, head = http.get(path), http.head(path)
    assert (whole.status_code, head.status_code, head.content) == (200, 200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(http: httpx.Client, method: str) -> None:
    response = http.request(method, "/v1/rank/")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or problem(response).status == 405
    assert http.post("/v1/models").headers["allow"] == "GET"


@pytest.mark.parametrize("offered", [b"\xff\xfe", b"\xc3\xa9", b"two words", b"x" * 129, b"x" * 9000, b"", b"a\tb"])
def test_an_odd_request_id_is_replaced(http: httpx.Client, offered: bytes) -> None:
    for path, content in (("/v1/rank", BODY), ("/v1/rank", b"{}"), ("/v1/nothing", BODY)):
        response = http.post(path, content=content, headers=[(b"x-request-id", offered), *_json_header()])
        assert response.status_code in (200, 404, 422)
        sent = response.headers.get_list("x-request-id")
        assert len(sent) == 1
        assert is_request_id(sent[0])
        assert response.json()["request_id"] == sent[0]


def test_of_several_request_ids_the_first_valid_one_counts(http: httpx.Client) -> None:
    ids = [(b"x-request-id", value) for value in (b"\xff", b"first", b"second")]
    response = http.post("/v1/rank", content=BODY, headers=[*ids, *_json_header()])
    assert response.headers["x-request-id"] == response.json()["request_id"] == "first"


@pytest.mark.parametrize(
    "name", [b"x-session-id", b"serve_multiplexed_model_id", b"Serve-Multiplexed-Model-Id", b"traceparent", b"cookie"]
)
def test_headers_that_are_not_utf8_do_no_harm(http: httpx.Client, name: bytes) -> None:
    assert scores(http.post("/v1/rank", content=BODY, headers=[(name, b"\xff\xfe"), *_json_header()]))


def _json_header() -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json")]


@pytest.mark.parametrize("offered", ["two words", "x" * 129, "x" * 5000, "a,b;c=d"])
def test_an_odd_request_id_over_grpc_is_replaced(service: serving.RunningService, offered: str) -> None:
    message = RANK.request_to_proto(RankOptions(prompt="p"), list(PICTURES[:2]))
    refused = RANK.request_to_proto(RankOptions(prompt="p", mixture="beauty"), list(PICTURES[:2]))
    metadata = [
        ("application", "ranking"),
        ("request_id", offered),
        ("authorization", "Basic \x7e"),
        ("x-bin", b"\xff"),
    ]
    with grpc.insecure_channel(address(service, "grpc").removeprefix("grpc://")) as channel:
        stub = RANK.stub_method(_stub(channel))
        assert is_request_id(stub(message, metadata=metadata, timeout=30).request_id)
        with pytest.raises(grpc.RpcError) as caught:
            stub(refused, metadata=metadata, timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    trailing = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    assert is_request_id(json.loads(trailing["drpo-error"])["request_id"])


def _stub(channel: grpc.Channel) -> Any:
    from drpo_rewards.v1 import ranking_pb2_grpc

    return ranking_pb2_grpc.RankingStub(channel)


# -- web pages of other origins -------------------------------------------------------------------------------------


def test_a_page_of_another_origin_cannot_make_it_work(service: serving.RunningService, http: httpx.Client) -> None:
    """The form of a page needs no preflight: the browser sends it, although the page cannot read the answer."""
    form = {"files": [("request", (None, '{"prompt": "p"}', "application/json"))]}
    ranked = 'requests_total{code="ok",operation="rank"'

    def count() -> list[str]:
        return [line for line in http.get("/metrics").text.splitlines() if ranked in line]

    before = count()
    for origin in ("https://evil.example", "null", f"https://{http.base_url.host}:1", "http://localhost:1"):
        for sent in (form, {"content": BODY, "headers": JSON}):
            more = sent.get("headers", {}) | {"origin": origin}
            response = http.post("/v1/rank", **{**sent, "headers": more})
            assert (response.status_code, problem(response).code) == (403, "foreign_origin")
            assert "allowed_origins" in problem(response).detail
            assert "access-control-allow-origin" not in response.headers
    assert http.options("/v1/rank", headers={"origin": "https://evil.example"}).status_code == 403
    assert count() == before


def test_a_name_that_others_may_own_is_refused(http: httpx.Client) -> None:
    """A page of evil.example whose name then leads to this machine is of the same origin as the service (rebinding)."""
    for headers in ({"host": "evil.example:8000"}, {"host": "evil.example", "origin": "http://evil.example"}):
        response = http.get("/v1/models", headers=headers)
        assert (response.status_code, problem(response).code) == (403, "foreign_origin")
        assert "allowed_hosts" in problem(response).detail


def test_the_services_own_page_and_programs_are_served(http: httpx.Client) -> None:
    own = f"{http.base_url.scheme}://{http.base_url.netloc.decode()}"
    assert rank(http, origin=own, sec_fetch_site="same-origin").status_code == 200
    assert rank(http).status_code == 200
    assert rank(http, host=f"localhost:{http.base_url.port}").status_code == 200


def test_with_keys_nothing_more_is_refused(guarded: serving.RunningService) -> None:
    headers = {"origin": "https://my.site", "host": "rank.my.site", "authorization": f"Bearer {KEY}"}
    assert httpx.get(f"{guarded.http_url}/v1/models", headers=headers).status_code == 200
    assert httpx.get(f"{guarded.http_url}/v1/models", headers={"origin": "https://my.site"}).status_code == 401
