"""The HTTP routes of the gateway: every operation, models, health, metrics, and the page that documents them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drpo_rewards.api.contract import ModelList, Readiness
from drpo_rewards.operations import OPERATIONS, Operation
from drpo_rewards.serving.gateway import openapi, problem_documents, request_body
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.call import Origin
from drpo_rewards.serving.gateway.gateway import Gateway
from drpo_rewards.serving.gateway.web_page import add_page

JSON = "application/json"
PLAIN_TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' exposition format


def build_app(gateway: Gateway) -> FastAPI:
    """Build the app with all routes, for one gateway replica."""
    app = FastAPIOffline(  # serves the scripts of /docs itself
        title="DrPO ranking service", version="1", redoc_url=None, swagger_ui_oauth2_redirect_url="/docs/oauth2"
    )
    for operation in OPERATIONS.values():
        _add_operation(app, gateway, operation)

    @app.get("/v1/models", response_model=ModelList, responses=openapi.problems(401))
    async def models(request: Request) -> Response:
        """List the rewards and mixtures of this service."""
        gateway.authorize(_origin(request))
        return Response((await gateway.list_models()).model_dump_json(), media_type=JSON)

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """Return 200 if the gateway runs. This does not check any reward."""
        return {"status": "live"}

    @app.get("/health/ready", response_model=Readiness, responses={503: {"model": Readiness}})
    async def ready() -> Response:
        """Score one image with every reward. The status is 503 if one of them cannot."""
        readiness = await gateway.probe_rewards()
        return Response(readiness.model_dump_json(), 200 if readiness.ready else 503, media_type=JSON)

    @app.get("/metrics", response_class=Response, responses=openapi.METRICS)
    async def metrics(request: Request) -> Response:
        """Return the gateway's counters, for Prometheus."""
        gateway.authorize(_origin(request))
        return Response(gateway.metrics_text(), media_type=PLAIN_TEXT)

    add_page(app)
    problem_documents.handle_errors(app)
    openapi.complete(app, OPERATIONS.values())
    app.add_middleware(SecurityHeaders)
    return app


def _add_operation(app: FastAPI, gateway: Gateway, operation: Operation[Any, Any]) -> None:
    async def endpoint(request: Request) -> Response:
        async def read(allowance: Allowance) -> tuple[Any, Sequence[np.ndarray]]:
            return await request_body.read(
                request, operation, allowance, gateway.decoders, gateway.config.limits.body_idle_s
            )

        response = await gateway.perform(operation, _origin(request), read)
        return Response(response.model_dump_json(exclude_none=True), media_type=JSON)

    app.add_api_route(
        f"/v1/{operation.name}",
        endpoint,
        methods=["POST"],
        name=operation.name,
        summary=operation.summary,
        response_model=operation.response,
        responses=openapi.problems(401, 404, 408, 413, 415, 422, 429, 500, 502, 503, 504),
        openapi_extra=openapi.request_body(operation),
    )
    for path in operation.other_paths:
        app.add_api_route(path, endpoint, methods=["POST"], include_in_schema=False)


def _origin(request: Request) -> Origin:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    offered = key if scheme.lower() == "bearer" else request.headers.get("x-api-key")
    announced = request.headers.get("content-length", "")
    body_bytes = int(announced) if announced.isdecimal() else 0
    return Origin("http", problem_documents.request_id_of(request), offered, body_bytes)


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
