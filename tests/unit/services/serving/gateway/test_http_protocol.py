"""What a client may send beside bodies has bounds, and what is no HTTP gets an answer. Real sockets, no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest
import uvloop
from support.replica_handle import listening

from drpo_rewards.serving.gateway import http_protocol

HEAD = b"POST /v1/rank HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def send(port: int | None, data: bytes, more: bytes = b"", times: int = 1) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes, as far as the service takes them; the status, headers and body of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        for _ in range(times):
            writer.write(more)
            await writer.drain()
    except ConnectionError:
        pass  # it has answered already
    async with asyncio.timeout(30):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    return int(status.split()[1]), headers, body


async def send_in_two(port: int | None, data: bytes, first: int) -> bytes:
    """Sends bytes, the first ones a moment before the others; all that comes back within a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data[:first])
    await asyncio.sleep(0.3)
    writer.write(data[first:])
    answer = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while piece := await reader.read(100_000):
                answer += piece
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nx: ", b"y" * 10_000),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"x: y\r\n" * 2_000),
        (b"GET /", b"y" * 10_000),
        (b"", b"\r\n" * 5_000),
        (CHUNKED + b"1;", b"y" * 10_000),
        (CHUNKED + b"1\r\n \r\n0\r\nx: ", b"y" * 10_000),
    ],
    ids=["a header", "many headers", "a path", "nothing", "beside a piece of a body", "after a body"],
)
async def test_what_is_beside_a_body_has_a_bound(begin: bytes, more: bytes) -> None:
    """Without one, a header of 100 MB kept the gateway busy for minutes, until Serve replaced it."""
    async with listening(grpc=None) as (_, _, port, _):
        status, headers, body = await send(port, begin, more, times=60)
        assert (status, headers["connection"]) == (431, "close")
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["detail"] == "more than 64000 bytes of headers"


async def test_large_bodies_and_usual_headers_pass() -> None:
    body = b'{"prompt": "' + b"y" * 300_000 + b'"}'
    async with listening(grpc=None) as (_, _, port, _), httpx.AsyncClient(trust_env=False) as client:
        for content in (body, _pieces(body)):  # announced, and chunked
            response = await client.post(
                f"http://127.0.0.1:{port}/v1/rank",
                content=content,
                headers={"content-type": "application/json", "cookie": "x" * 30_000},
            )
            assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


async def _pieces(body: bytes):  # type: ignore[no-untyped-def]
    for start in range(0, len(body), 1_000):
        yield body[start : start + 1_000]


@pytest.mark.parametrize("size", [1, 7, 70_000])
async def test_a_body_is_whole_whatever_its_pieces(size: int) -> None:
    body = b'{"prompt": "p", ' + b" " * 150_000 + b'"images": ["!"]}'
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    async with listening(grpc=None) as (_, _, port, _):
        status, _, answer = await send(port, CHUNKED + data + b"0\r\n\r\n")
        detail = "`images`: List should have at least 2 items after validation, not 1"
        assert (status, json.loads(answer)["detail"]) == (422, detail)


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
async def test_an_offer_of_another_protocol_is_ignored(offer: bytes) -> None:
    """Java's client makes one with each request; the body that follows was lost."""
    body = b'{"prompt": "p", "images": ["!"]}'
    offered = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nuPgrade: " + offer + b"\r\nHTTP2-Settings: AAMA\r\n"
    announced = offered + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunked = offered + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    split = announced.index(b"uPgrade:")
    pieces = {"whole": (announced, b""), "chunked": (chunked, b""), "two": (announced[:split], announced[split:])}
    async with listening(grpc=None) as (_, _, port, _):
        for begin, more in pieces.values():
            status, _, answer = await send(port, begin, more)
            assert (status, json.loads(answer)["detail"][:9]) == (422, "`images`:")
        for again in (announced, chunked):  # on a connection that was used before
            answer = await send_in_two(port, announced + again, len(announced))
            assert answer.count(b"422 ") == answer.count(b"`images`:") == 2
        answer = await send_in_two(port, announced, split + 3)  # the offer's own name is cut in two
        assert b"400 Bad Request" in answer
        assert b"omit `Upgrade`" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",
        HEAD + b"Content-Length: -1\r\n\r\n",
        b"FETCH / HTTP/1.1\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
    ids=["TLS", "a length", "a method", "a chunk"],
)
async def test_what_is_no_http_gets_a_problem_document(data: bytes) -> None:
    async with listening(grpc=None) as (_, _, port, _):
        status, headers, body = await send(port, data)
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert json.loads(body)["detail"] == "this is not valid HTTP/1.1"


async def test_a_head_that_does_not_arrive_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection with no request yet just ends; and the head of a next request waits for the answer before it."""
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.2)
    async with listening(grpc=None) as (_, handles, port, _):
        status, _, body = await send(port, b"GET /health HTTP/1.1\r\n")
        assert (status, json.loads(body)["title"]) == (408, "Request Timeout")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        handles["redness"].delay_s = 1.0
        status, _, body = await send(port, b"GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\nGET /hea")
        assert (status, json.loads(body)["ready"]) == (200, True)


def test_a_client_that_hangs_up_on_requests_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn told the last one only, and the one before it was answered into a closed connection, with a traceback."""

    async def hang_up() -> None:
        ready = b"GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n"
        async with listening(grpc=None) as (_, handles, port, _):
            calls = handles["redness"].calls
            assert (await send_in_two(port, ready * 3, len(ready))).count(b"200 OK") == len(calls) == 3
            handles["redness"].delay_s = 0.1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ready * 3)
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            await asyncio.sleep(0.5)
            assert len(calls) == 5  # the third is not begun

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the gateway's, whose closed sockets raise
        runner.run(hang_up())
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("later", [b"\x16\x03 no HTTP\r\n\r\n", b"GET /health HTTP/1.1\r\nx: " + b"y" * 70_000])
async def test_what_follows_a_request_does_not_cost_it_its_answer(later: bytes) -> None:
    """The refusal came first, and looked like the answer to the request before."""
    async with listening(grpc=None) as (_, handles, port, _):
        handles["redness"].delay_s = 0.3
        answer = await send_in_two(port, b"GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n" + later, 40)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close" in answer.lower()
        assert answer.count(b"HTTP/1.1") == 1
