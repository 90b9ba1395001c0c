"""Keep web pages of other origins from using a service without API keys through a visitor's browser.

A browser on the service's machine reaches the service although strangers do not, and any page that it shows can send
requests there. The browser names the page in `Origin`, and the host that the page believes it talks to in `Host`. If a
page's own name leads to this machine (DNS rebinding), it is of the same origin, but its `Host` is foreign. Programs
send no `Origin`. With API keys nothing is refused here, because a page has no key.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from drpo_rewards.errors import ForeignOriginError
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.problem_documents import answer_error

# Top-level names that no public name server can hold, so that no stranger's page can have such a host.
PRIVATE_DOMAINS = ("localhost", "local", "internal", "svc")

PORTS = {"http": 80, "https": 443}


class RefuseStrangers:
    """Answers 403 to what `check_sender` refuses."""

    def __init__(self, app: ASGIApp, config: ServiceConfig) -> None:
        self.app = app
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            try:
                check_sender(scope["method"], request.headers, self.config)
            except ForeignOriginError as error:
                response = await answer_error(request, error)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)


def check_sender(method: str, headers: Mapping[str, str], config: ServiceConfig) -> None:
    """Check that a request comes from a program or from a page of this service, or that the config allows its origin.

    Raises:
        ForeignOriginError: it comes from another page, or names a host that is not this service's.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _is_our_host(host, config):
        raise ForeignOriginError(
            f"the host {host[:100]!r} is not known as one of this service, which has no API keys; call it by its "
            "address or as localhost, or add the name to `allowed_hosts` in its config"
        )
    if origin is None:
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "")
        followed_link = mode == "navigate" and method in ("GET", "HEAD")
        foreign = site in ("cross-site", "same-site") and not followed_link
        origin = "another page" if foreign else None
    elif {"*", origin} & set(config.allowed_origins) or _location(origin) == _location(f"http://{host}", origin):
        origin = None
    if origin is not None:
        raise ForeignOriginError(
            f"a web page of {origin[:100]!r} may not use this service, which has no API keys; add its origin to "
            "`allowed_origins` in the service's config"
        )


def _is_our_host(header: str, config: ServiceConfig) -> bool:
    """Return whether `Host` is an address, a name that no public name server holds, or one that the config allows."""
    name = (_location(f"http://{header}")[0] or "").rstrip(".")
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        pass
    allowed = {config.host, socket.gethostname(), *config.allowed_hosts}
    return (
        "*" in allowed
        or name in {known.lower() for known in allowed}
        or "." not in name
        or name.rpartition(".")[2] in PRIVATE_DOMAINS
    )


def _location(url: str, scheme_of: str = "") -> tuple[str | None, int | None]:
    """Return host name and port of a URL; the port that is left out is that of `scheme_of`, or of the URL itself."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(urlsplit(scheme_of or url).scheme)
    except ValueError:  # no number, or a bracket without its other one
        return None, None
    return parts.hostname, port
