"""Parts of the client without a service: its background loop, and what it makes of responses of a newer service."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from drpo_rewards import AsyncRankingClient, RankResponse
from drpo_rewards.api.contract import ModelList
from drpo_rewards.client.background import BackgroundLoop
from drpo_rewards.client.transports.http import _read
from drpo_rewards.errors import InternalError, ServiceUnavailableError


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    with BackgroundLoop("tested") as made:
        yield made


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_coroutines_run_on_the_loop(loop: BackgroundLoop) -> None:
    assert loop.run(double(4)) == 8
    assert [future.result() for future in [loop.submit(double(number)) for number in range(3)]] == [0, 2, 4]


def test_closing_ends_the_calls_of_other_threads(loop: BackgroundLoop) -> None:
    outcome: list[BaseException] = []
    started = threading.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            loop.run(hang())
        except ServiceUnavailableError as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    started.wait()
    loop.close()
    thread.join(timeout=10)
    assert [str(error) for error in outcome] == ["this client was closed during the call"]


def test_a_closed_loop_says_so(loop: BackgroundLoop) -> None:
    loop.close()
    loop.close()
    with pytest.raises(ServiceUnavailableError, match="this client is closed"):
        loop.run(double(1))


def response(content: object) -> httpx.Response:
    return httpx.Response(200, content=json.dumps(content), request=httpx.Request("GET", "http://service/v1/models"))


def test_fields_of_a_newer_service_are_ignored() -> None:
    models = {"models": [{"name": "a", "invented_later": 1}], "invented_later": {}}
    assert [model.name for model in _read(ModelList, response(models)).models] == ["a"]
    scores = {"scores": [1.0, 0.0], "version": "v", "weight": 1.0, "invented_later": []}
    ranked = {"request_id": "r", "combined": [1, -1], "order": [0, 1], "ranks": [0, 1], "all_tied": False}
    assert _read(RankResponse, response(ranked | {"rewards": {"a": scores}})).rewards["a"].scores == [1.0, 0.0]
    with pytest.raises(InternalError, match="did not send a valid RankResponse"):
        _read(RankResponse, response(models))


def test_after_a_fork_a_client_says_so() -> None:
    """Only the thread that forks is copied, so a call would wait for ever."""
    script = (
        "import os, warnings; warnings.simplefilter('ignore')\n"
        "from drpo_rewards import RankingClient, errors\n"
        "with RankingClient('http://127.0.0.1:9') as client:\n"
        "    if os.fork() == 0:\n"
        "        try: client.models()\n"
        "        except errors.ConfigError as error: print(error)\n"
        "    else: os.wait()\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert answer.stdout == "this client was made before a fork of the process; make one in each process\n"
    assert (answer.returncode, answer.stderr) == (0, "")


class NoModels(BaseHTTPRequestHandler):
    """Answers once and keeps the connection open."""

    protocol_version = "HTTP/1.1"
    timeout = 2

    def do_GET(self) -> None:
        body = b'{"models": []}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_client_whose_event_loop_has_ended_can_be_closed() -> None:
    with HTTPServer(("127.0.0.1", 0), NoModels) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        client = AsyncRankingClient(f"http://127.0.0.1:{server.server_port}", retries=0)
        try:
            assert asyncio.run(client.models()) == []
            asyncio.run(client.close())
        finally:
            del client
            server.shutdown()
            thread.join()
