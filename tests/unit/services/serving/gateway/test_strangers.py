"""Which pages may use a service without API keys, and how a config lets in others."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from support.replica_handle import local_gateway

from drpo_rewards.errors import ForeignOriginError
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.http import build_app
from drpo_rewards.serving.gateway.strangers import check_sender


def config(**changes: Any) -> ServiceConfig:
    return ServiceConfig.model_validate({"rewards": {"a": {"type": "geneval"}}, **changes})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000", "10.1.2.3", "[::1]:8000", "[fe80::1]", "localhost:8000", "LOCALHOST", "app.localhost:1",
        "ranking", "head:8000", "ranking.default.svc:8000", "ranking.default.svc.cluster.local", "printer.local.",
        "ip-10-0-0-1.ec2.internal", "", f"{socket.gethostname()}:8000", "my.host",
    ],
)  # fmt: skip
def test_hosts_that_no_stranger_can_own(host: str) -> None:
    check_sender("POST", {"host": host}, config(allowed_hosts=["my.host"]))


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "127.0.0.1@evil.example", "1.2.3.example"],
)
def test_hosts_that_a_stranger_may_own(host: str) -> None:
    with pytest.raises(ForeignOriginError, match="allowed_hosts"):
        check_sender("POST", {"host": host}, config())
    check_sender("POST", {"host": host}, config(allowed_hosts=["*"]))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("ranking", "https://ranking"),  # a proxy in front speaks TLS
        ("127.0.0.1:8000", "https://my.site"),
    ],
)
def test_pages_of_the_same_origin_or_an_allowed_one(host: str, origin: str) -> None:
    check_sender("POST", {"host": host, "origin": origin}, config(allowed_origins=["https://my.site"]))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "file://"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ],
)
def test_pages_of_another_origin(headers: dict[str, str]) -> None:
    sent = {"host": "127.0.0.1:8000", **headers}
    for method in ("GET", "POST"):
        with pytest.raises(ForeignOriginError, match="allowed_origins"):
            check_sender(method, sent, config())
    if "origin" in headers:
        check_sender("POST", sent, config(allowed_origins=["*"]))


@pytest.mark.parametrize("origin", ["*", "null", "https://my.site", "http://localhost:3000", "chrome-extension://abc"])
def test_origins_as_browsers_send_them(origin: str) -> None:
    assert config(allowed_origins=[origin]).allowed_origins == [origin]


@pytest.mark.parametrize(
    "origin",
    [
        "my.site",
        "https://my.site/",
        "https://My.site",
        "https://my.site:443",
        "http://my.site:80",
        "https://",
        "",
        "https://a/b",
    ],
)
def test_origins_that_no_browser_sends_are_refused(origin: str) -> None:
    """They would never be equal to the header."""
    with pytest.raises(ValueError, match="no origin as browsers send it"):
        config(allowed_origins=[origin])


@pytest.mark.parametrize("host", ["https://rank.my.site", "rank.my.site:8000", "rank.my.site/", "a b", ""])
def test_hosts_that_are_no_names_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        config(allowed_hosts=[host])


def test_a_link_on_another_page_may_be_followed() -> None:
    link = {"host": "127.0.0.1:8000", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    check_sender("GET", link, config())
    with pytest.raises(ForeignOriginError):
        check_sender("POST", link, config())
    check_sender("GET", {"host": "127.0.0.1:8000", "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, config())


@pytest.fixture
def app() -> httpx.AsyncClient:
    gateway, _ = local_gateway(redness="support.rewards:Redness")
    gateway.config.allowed_origins = ["https://my.site"]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=build_app(gateway)), base_url="http://127.0.0.1:8000")


async def test_preflights_of_an_allowed_origin_are_answered(app: httpx.AsyncClient) -> None:
    asked = {
        "origin": "https://my.site",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type, authorization, x-request-id",
        "access-control-request-private-network": "true",
    }
    answer = await app.options("/v1/rank", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://my.site"
    assert answer.headers["access-control-allow-private-network"] == "true"
    read = await app.get("/health/live", headers={"origin": "https://my.site"})
    assert (read.status_code, read.headers["access-control-allow-origin"]) == (200, "https://my.site")
    assert read.headers["access-control-expose-headers"] == "x-request-id, retry-after"
    failed = await app.post("/v1/rank", content=b"{", headers={"origin": "https://my.site"})
    assert (failed.status_code, failed.headers["access-control-allow-origin"]) == (415, "https://my.site")
    foreign = await app.options("/v1/rank", headers=asked | {"origin": "https://evil.example"})
    assert foreign.status_code == 400
    assert "access-control-allow-origin" not in foreign.headers
