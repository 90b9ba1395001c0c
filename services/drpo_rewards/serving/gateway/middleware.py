"""What happens to every HTTP request and response around the routes: its id, its path, and headers for browsers."""

from __future__ import annotations

import uuid
from typing import ClassVar

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drpo_rewards.serving.gateway.problem_documents import is_request_id
from drpo_rewards.serving.ports import APPLICATION_HEADER

REQUEST_ID = b"x-request-id"


class RequestIds:
    """Gives each request an id, which `request.state` holds and its response repeats.

    It is the first valid `x-request-id` that was sent, or a new one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        offered = [value.decode("latin-1") for name, value in scope["headers"] if name == REQUEST_ID]
        request_id = next(filter(is_request_id, offered), uuid.uuid4().hex)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (REQUEST_ID, request_id.encode())]
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id  # in place: what is around this app reads it too
        await self.app(scope, receive, send_with_id)


class NamedService:
    """Serves the app below `/NAME` too, which is the address of every service but the default one, and names it.

    Several services may stand behind one address, where something else forwards by path.
    """

    def __init__(self, app: ASGIApp, application: str, prefix: str) -> None:
        self.app = app
        self._header = (APPLICATION_HEADER.encode(), application.encode())
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and f"{scope['path']}/".startswith(f"{self._prefix}/"):
            scope = {**scope, "root_path": self._prefix}

        async def send_with_name(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), self._header]
            await send(message)

        await self.app(scope, receive, send_with_name)


class ForgivingRoutes:
    """Treats several slashes like one, and one at the end of a path like none; answers HEAD wherever GET is answered.

    Clients that join an address and a path may write such slashes. A redirect would lose calls: many clients do
    not follow one, or follow it with GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        prefix = scope.get("root_path", "").rstrip("/")
        if prefix and scope["path"] == prefix:  # of the page, whose relative links need the slash
            await RedirectResponse(f"{prefix}/")(scope, receive, send)
            return
        only_headers = scope["method"] == "HEAD"

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        path = _without_needless_slashes(scope["path"], prefix)
        scope = {**scope, "path": path, "method": "GET" if only_headers else scope["method"]}
        await self.app(scope, receive, send_without_body if only_headers else send)


class SecurityHeaders:
    """Adds headers that keep a browser from running anything that this service did not send.

    A header that a route has set itself is kept; the page sets stricter ones.
    """

    # /docs starts with an inline script; blob: shows pictures that the user has chosen.
    HEADERS: ClassVar[dict[bytes, bytes]] = {
        b"content-security-policy": b"default-src 'self'; script-src 'self' 'unsafe-inline'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:",
        b"x-content-type-options": b"nosniff",
    }

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                names = {name.lower() for name, _ in headers}
                missing = [(name, value) for name, value in self.HEADERS.items() if name not in names]
                message["headers"] = headers + missing
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _without_needless_slashes(path: str, prefix: str) -> str:
    """Return the path with single slashes, and none at its end; the page itself is at `/` below the prefix."""
    return prefix + "/" + "/".join(filter(None, path.removeprefix(prefix).split("/")))
