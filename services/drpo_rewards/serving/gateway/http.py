"""The HTTP routes of the gateway: every operation, models, health, metrics, and the page that documents them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from drpo_rewards.api.contract import NamedModel, NamedModelList, Readiness
from drpo_rewards.operations import OPERATIONS, Operation
from drpo_rewards.operations.base import Body
from drpo_rewards.serving.gateway import openapi, problem_documents, request_body
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.call import Origin
from drpo_rewards.serving.gateway.gateway import Gateway
from drpo_rewards.serving.gateway.middleware import ForgivingRoutes, RequestIds, SecurityHeaders
from drpo_rewards.serving.gateway.strangers import RefuseStrangers
from drpo_rewards.serving.gateway.web_page import add_page

JSON = "application/json"
PLAIN_TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' exposition format
CLIENT_GONE = 499  # nobody gets this status, except a log of something in between

ResultT = TypeVar("ResultT")


def build_app(gateway: Gateway) -> FastAPI:
    """Build the app with all routes, for one gateway replica."""
    app = FastAPIOffline(  # serves the scripts of /docs itself
        title="DrPO ranking service",
        version="1",
        redoc_url=None,
        swagger_ui_oauth2_redirect_url="/docs/oauth2",
        redirect_slashes=False,
    )
    for operation in OPERATIONS.values():
        _add_operation(app, gateway, operation)

    @app.get("/v1/models", response_model=NamedModelList, responses=openapi.problems(401, 403))
    async def models(request: Request) -> Response:
        """List the rewards and mixtures of this service."""
        gateway.authorize(_origin(request))
        return Response(NamedModelList.of(await gateway.list_models()).model_dump_json(), media_type=JSON)

    @app.get("/v1/models/{name:path}", response_model=NamedModel, responses=openapi.problems(401, 403, 404))
    async def model(request: Request, name: str) -> Response:
        """Describe one reward or mixture."""
        gateway.authorize(_origin(request))
        return Response(NamedModel.of(await gateway.describe_model(name)).model_dump_json(), media_type=JSON)

    @app.get("/health", include_in_schema=False)  # where other services have it
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
    _add_middleware(app, gateway)
    return app


def _add_middleware(app: FastAPI, gateway: Gateway) -> None:
    """Add what surrounds the routes, from the inside to the outside."""
    app.add_middleware(ForgivingRoutes)
    if not gateway.needs_key:
        app.add_middleware(RefuseStrangers, config=gateway.config)
    if gateway.config.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=gateway.config.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "x-api-key", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
            allow_private_network=True,  # a page of the internet may call a service that is not
        )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestIds)


def _add_operation(app: FastAPI, gateway: Gateway, operation: Operation[Any, Any]) -> None:
    app.add_api_route(
        f"/v1/{operation.name}",
        _make_endpoint(gateway, operation, operation.body),
        methods=["POST"],
        name=operation.name,
        summary=operation.summary,
        response_model=operation.http_response or operation.response,
        responses=openapi.problems(401, 403, 404, 408, 413, 415, 422, 429, 500, 502, 503, 504),
        openapi_extra=openapi.request_body(operation),
    )
    for path, body in operation.other_paths.items():
        app.add_api_route(path, _make_endpoint(gateway, operation, body), methods=["POST"], include_in_schema=False)


def _make_endpoint(
    gateway: Gateway, operation: Operation[Any, Any], body: type[Body]
) -> Callable[[Request], Awaitable[Response]]:
    """Make the function that answers one path of an operation, whose JSON bodies are of the class `body`."""

    async def endpoint(request: Request) -> Response:
        sent: list[Any] = []
        is_read = asyncio.Event()

        async def read(allowance: Allowance) -> tuple[Any, Sequence[np.ndarray]]:
            limits = gateway.config.limits
            options, contents = await request_body.read(request, operation.options, body, allowance, limits.body_idle_s)
            is_read.set()
            sent.append(options)
            fields = [options.image_field(index) for index in range(len(contents))]
            return options, await gateway.decoders.decode_all(contents, fields, allowance)

        response = await _run_unless_gone(request, is_read, gateway.perform(operation, _origin(request), read))
        if response is None:
            return Response(status_code=CLIENT_GONE)
        answer = operation.http_answer(sent[0], response)
        return Response(answer.model_dump_json(exclude_none=True), media_type=JSON)

    return endpoint


async def _run_unless_gone(
    request: Request, is_read: asyncio.Event, work: Coroutine[Any, Any, ResultT]
) -> ResultT | None:
    """Run `work`, but end it when the client closes the connection, as `work` would cost others time for nobody.

    Args:
        is_read: set when the body has been read. Until then the reader itself sees a client that goes away.

    Returns:
        What `work` returned; None if the client is gone.
    """

    async def wait_until_gone() -> None:
        await is_read.wait()
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, waiting = asyncio.create_task(work), asyncio.create_task(wait_until_gone())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, waiting):
            task.cancel()


def _origin(request: Request) -> Origin:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    offered = key if scheme.lower() == "bearer" else request.headers.get("x-api-key")
    announced = request.headers.get("content-length", "")
    body_bytes = int(announced) if announced.isdecimal() else 0
    return Origin("http", problem_documents.request_id_of(request), offered, body_bytes)
