"""The HTTP routes of the gateway: the four operations, models, health, metrics, and the page that documents them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drpo_rewards.api.contract import Model, ModelList, Readiness
from drpo_rewards.operations import OPERATIONS, CompareRequest, Operation, RankRequest, ScoreRequest
from drpo_rewards.rerank import RerankRequest
from drpo_rewards.serving.gateway import openapi, problem_documents, request_body
from drpo_rewards.serving.gateway.interface import Allowed, GatewayInterface, Origin
from drpo_rewards.serving.gateway.web_page import add_page

JSON = "application/json"
PLAIN_TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' exposition format

BODIES: dict[str, type[Model]] = {
    "rank": RankRequest,
    "score": ScoreRequest,
    "compare": CompareRequest,
    "rerank": RerankRequest,
}
SUMMARIES = {
    "rank": "Rank one group of images: scores, order, ranks and pairs.",
    "score": "Raw scores of a batch of groups, nothing combined.",
    "compare": "The better one of two images.",
    "rerank": "Images sorted for a query, in the shape of Cohere, Jina and vLLM.",
}
# The other addresses at which clients of rerank services look for it.
ALIASES = {"rerank": ["/rerank", "/v2/rerank"]}


def build_app(gateway: GatewayInterface) -> FastAPI:
    """The routes, bound to one gateway replica."""
    app = FastAPIOffline(  # /docs with its scripts from here, not from elsewhere
        title="DrPO ranking service", version="1", redoc_url=None, swagger_ui_oauth2_redirect_url="/docs/oauth2"
    )
    for operation in OPERATIONS.values():
        _add_operation(app, gateway, operation, BODIES[operation.name])

    @app.get("/v1/models", response_model=ModelList, responses=openapi.problems(401))
    async def models(request: Request) -> Response:
        """The rewards and mixtures of this service."""
        gateway.authorize(_origin(request))
        return Response((await gateway.list_models()).model_dump_json(), media_type=JSON)

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """The gateway answers. Says nothing about rewards."""
        return {"status": "live"}

    @app.get("/health/ready", response_model=Readiness, responses={503: {"model": Readiness}})
    async def ready() -> Response:
        """Scores one image with every reward; 503 unless all of them could."""
        readiness = await gateway.probe_rewards()
        return Response(readiness.model_dump_json(), 200 if readiness.ready else 503, media_type=JSON)

    @app.get("/metrics", response_class=Response, responses=openapi.METRICS)
    async def metrics(request: Request) -> Response:
        """The gateway's counters, for Prometheus."""
        gateway.authorize(_origin(request))
        return Response(gateway.metrics_text(), media_type=PLAIN_TEXT)

    add_page(app)
    problem_documents.install(app)
    openapi.install(app, OPERATIONS.values(), BODIES)
    app.add_middleware(SecurityHeaders)
    return app


def _add_operation(app: FastAPI, gateway: GatewayInterface, operation: Operation[Any, Any], body: type[Model]) -> None:
    async def endpoint(request: Request) -> Response:
        async def read(allowed: Allowed) -> tuple[Any, Sequence[np.ndarray]]:
            return await request_body.read(request, operation.options, body, allowed, gateway.config.limits.body_idle_s)

        answer = await gateway.perform(operation, _origin(request), read)
        return Response(answer.model_dump_json(exclude_none=True), media_type=JSON)

    app.add_api_route(
        f"/v1/{operation.name}",
        endpoint,
        methods=["POST"],
        name=operation.name,
        summary=SUMMARIES[operation.name],
        response_model=operation.answer,
        responses=openapi.problems(401, 404, 408, 413, 415, 422, 429, 500, 502, 503, 504),
        openapi_extra=openapi.request_body(operation, body),
    )
    for path in ALIASES.get(operation.name, []):
        app.add_api_route(path, endpoint, methods=["POST"], include_in_schema=False)


def _origin(request: Request) -> Origin:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    offered = key if scheme.lower() == "bearer" else request.headers.get("x-api-key")
    announced = request.headers.get("content-length", "")
    body_bytes = int(announced) if announced.isdecimal() else 0
    return Origin("http", problem_documents.request_id_of(request), offered, body_bytes)


class SecurityHeaders:
    """Headers that keep a browser from running or guessing anything that this service did not send.

    A route that brings a stricter one of its own, as the page does, keeps it.
    """

    # Inline is what the documentation page starts itself with; blob: shows pictures that a page was given.
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
                given = list(message.get("headers", []))
                names = {name.lower() for name, _ in given}
                missing = [(name, value) for name, value in self.HEADERS.items() if name not in names]
                message["headers"] = given + missing
            await send(message)

        await self.app(scope, receive, send_with_headers)
