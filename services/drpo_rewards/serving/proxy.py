"""Ray Serve's own HTTP proxy: it makes odd headers harmless, and returns the memory of large bodies after a load.

Serve finds `prepare` by the environment variable $RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH.
"""

from __future__ import annotations

import uuid

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from drpo_rewards.cluster.memory import return_free_memory_when_idle
from drpo_rewards.serving.gateway.problem_documents import is_request_id

REQUEST_ID = b"x-request-id"

# Serve decodes these as UTF-8, and answers a plain 500 if that fails. It reads `-` and `_` in their names alike.
READ_BY_SERVE = {REQUEST_ID, b"x-session-id", b"serve-multiplexed-model-id", b"traceparent"}


def prepare() -> list[Middleware]:
    """Prepare the proxy's process at its start, and return the middlewares that the proxy adds."""
    return_free_memory_when_idle()
    return [Middleware(HarmlessHeaders)]


class HarmlessHeaders:
    """Gives each request exactly one valid `x-request-id`, and drops other headers that Serve could not decode."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": clean_headers(scope["headers"])}
        await self.app(scope, receive, send)


def clean_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers with one valid `x-request-id`: the first valid one that was sent, or a new one."""
    offered = [value.decode("latin-1") for name, value in headers if name == REQUEST_ID]
    request_id = next(filter(is_request_id, offered), uuid.uuid4().hex)
    kept = [(name, value) for name, value in headers if name != REQUEST_ID and _is_harmless(name, value)]
    return [*kept, (REQUEST_ID, request_id.encode())]


def _is_harmless(name: bytes, value: bytes) -> bool:
    if name.lower().replace(b"_", b"-") not in READ_BY_SERVE:
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
