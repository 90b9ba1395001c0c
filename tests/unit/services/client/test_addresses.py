"""Addresses, keys and arguments that people give to a client: a mistake is a RewardsError, and at once."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from drpo_rewards import AsyncRankingClient, Group, RankingClient
from drpo_rewards.client.transports import open_transport
from drpo_rewards.errors import ConfigError, InvalidImageError, InvalidRequestError, ServiceUnavailableError
from drpo_rewards.rewards.shared.http_endpoint import HttpEndpoint

PICTURES = np.zeros((2, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("localhost:8000", "did you mean http://localhost:8000?"),
        ("127.0.0.1", "did you mean http://127.0.0.1?"),
        ("", "write http://HOST:PORT"),
        ("http://", "write http://HOST:PORT"),
        ("ftp://host:21", "write http://HOST:PORT"),
        ("http://host:8000/v1", "it ends before /v1; write http://host:8000"),
        ("http://host:8000/ranking/v1/rank", "it ends before /v1; write http://host:8000/ranking"),
        ("grpc://host:9000/v1", "it ends before /v1; write grpc://host:9000"),
        ("http://host:8000/docs#rank", "it has more than a path"),
        ("http://host:8000?key=a", "it has more than a path"),
        ("http://host:99999", "port out of range"),
        ("http://host:port", "port could not be cast"),
        ("http://key@host:8000", "it names a user; give a key by api_key"),
        ("grpc://host", "it has no port"),
        ("http://[::1", "invalid IPv6 URL"),
        ("http://höst:8000", "it has letters that an address cannot have"),
        ("http://ho st:8000", "it has letters that an address cannot have"),
        (None, "the address and the key are texts"),
    ],
)
@pytest.mark.parametrize("client", [RankingClient, AsyncRankingClient])
def test_an_address_that_cannot_be_used(client: Any, address: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        client(address)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://host:8000/", "http://host:8000"),
        (" HTTP://host:8000\n", "http://host:8000"),
        ("https://host/ranking/", "https://host/ranking"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_addresses_are_tidied(address: str, url: str) -> None:
    assert open_transport(address, None).url == url  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["schlüssel", "two words", "a\nb", "tab\t", "key\n\n", "\ufeffkey"])
@pytest.mark.parametrize("address", ["http://host:8000", "grpc://host:9000"])
def test_a_key_that_no_header_carries(address: str, key: str) -> None:
    with pytest.raises(ConfigError, match="the API key: character") as caught:
        RankingClient(address, api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_end_of_a_key_file_is_no_part_of_the_key(end: str) -> None:
    transport = open_transport("http://host:8000", f"key{end}")
    assert transport._client.headers["authorization"] == "Bearer key"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"timeout_s": "30"}, {"max_in_flight": 0}, {"retries": -1}],
)
def test_numbers_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        RankingClient("http://host:8000", **options)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ("a.png", "images is a str; give a list of images"),
        (b"PNG", "images is a bytes"),
        (None, "images is a NoneType"),
        (7, "images is a int"),
        ({"a.png": 1}, "images is a dict"),
        (PICTURES[0], r"images is an array with the shape \(16, 16, 3\)"),
        (["a\0.png", "b.png"], r"images\[0\]: cannot read .*null"),
        ([3, "b.png"], r"images\[0\] is a int"),
    ],
)
def test_what_is_no_list_of_images(images: Any, reason: str) -> None:
    with RankingClient("http://127.0.0.1:9") as client:
        with pytest.raises(InvalidImageError, match=reason) as caught:
            client.rank("p", images)
        assert (caught.value.field or "").startswith("images")
        with pytest.raises(InvalidImageError, match=reason.replace("images", r"groups\[0\].images", 1)) as caught:
            client.score([Group("p", images)])
        assert (caught.value.field or "").startswith("groups[0].images")
        with pytest.raises(InvalidRequestError, match="each group is a Group"):
            client.score([3])  # type: ignore[list-item]


@pytest.mark.parametrize("request_id", ["", "ü", "a b", "a\n", "x" * 129, 3])
@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "grpc://127.0.0.1:9"])
def test_odd_request_ids_are_refused(address: str, request_id: Any) -> None:
    with RankingClient(address) as client, pytest.raises(InvalidRequestError, match="request_id"):
        client.rank("p", PICTURES, request_id=request_id)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "grpc://127.0.0.1:9"])
async def test_a_closed_client(address: str) -> None:
    client = AsyncRankingClient(address)
    await client.close()
    await client.close()
    assert not await client.ready()
    for call in (client.models(), client.readiness(), client.rank("p", PICTURES)):
        with pytest.raises(ServiceUnavailableError, match="this client is closed"):
            await call


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_client_that_is_closed_during_a_call(scheme: str) -> None:
    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()
        writer.close()

    called = asyncio.Event()
    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as silent:
        client = AsyncRankingClient(f"{scheme}://127.0.0.1:{silent.sockets[0].getsockname()[1]}", retries=0)
        call = asyncio.create_task(client.models())
        await called.wait()
        await client.close()
        with pytest.raises(ServiceUnavailableError, match="this client was closed during the call"):
            await call


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_call_that_is_cancelled_stays_cancelled(scheme: str) -> None:
    client = AsyncRankingClient(f"{scheme}://127.0.0.1:9", retries=100)
    call = asyncio.create_task(client.models())
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await client.close()


def test_a_client_of_another_event_loop() -> None:
    client = AsyncRankingClient("http://127.0.0.1:9", retries=0)

    async def call() -> None:
        await client.models()

    with pytest.raises(ServiceUnavailableError, match="cannot reach"):
        asyncio.run(call())
    with pytest.raises(ConfigError, match="another event loop"):
        asyncio.run(call())


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("use_proxies", [False, True])
async def test_proxies_are_used_only_if_asked_for(
    scheme: str, use_proxies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = set()

    def note(name: str) -> Any:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reached.add(name)
            writer.close()

        return answer

    proxy = await asyncio.start_server(note("proxy"), "127.0.0.1", 0)
    service = await asyncio.start_server(note("service"), "127.0.0.1", 0)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    address = f"{scheme}://127.0.0.1:{service.sockets[0].getsockname()[1]}"
    async with AsyncRankingClient(address, retries=0, timeout_s=10, use_proxies=use_proxies) as client:
        with pytest.raises(ServiceUnavailableError):
            await client.models()
    assert reached == {"proxy" if use_proxies else "service"}
    for server in (proxy, service):
        server.close()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("ALL_PROXY", "garbage://", "Unknown scheme for proxy URL"),
        ("HTTPS_PROXY", "http://proxy:port", "Invalid port"),
        ("SSL_CERT_FILE", "/none/such.pem", "No such file"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_the_users_mistake(
    name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    RankingClient("http://127.0.0.1:9").close()  # it looks at none
    with pytest.raises(ConfigError, match=rf"that the environment names cannot be used: .*{problem}.*; correct \$HTTP"):
        RankingClient("http://127.0.0.1:9", use_proxies=True)
    with pytest.raises(ConfigError, match="that the environment names cannot be used"):
        HttpEndpoint("the judge", "http://127.0.0.1:9")
