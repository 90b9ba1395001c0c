"""The HTTP routes of the gateway. Errors are problem documents (RFC 9457)."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from email.message import Message as Headers
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import FastAPI, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from drpo_rewards.contract import (
    MAX_IMAGES,
    ModelList,
    Problem,
    RankOptions,
    RankRequest,
    RankResponse,
    Readiness,
    parse,
)
from drpo_rewards.errors import (
    AuthenticationError,
    InternalError,
    InvalidImageError,
    InvalidRequestError,
    RequestTooLargeError,
    RewardsError,
    UnsupportedContentError,
)
from drpo_rewards.images import ImageLimits, decode, from_base64, from_rgb8
from drpo_rewards.serving.config import key_is_known
from drpo_rewards.serving.page import add_page

if TYPE_CHECKING:
    from drpo_rewards.serving.gateway import Gateway

logger = logging.getLogger("ray.serve")

# Plain pixels as a multipart part: `Content-Type: application/x-rgb8; width=64; height=64`.
RGB8 = "application/x-rgb8"
PROBLEM = "application/problem+json"


def build_app(gateway: Gateway) -> FastAPI:
    """The routes, bound to one gateway replica."""
    # The interactive pages of FastAPI load scripts from elsewhere; the document itself is served.
    app = FastAPI(title="DrPO ranking service", version="1", docs_url=None, redoc_url=None)
    problems: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": Problem, "content": {PROBLEM: {}}},
        "5XX": {"model": Problem, "content": {PROBLEM: {}}},
    }

    @app.post("/v1/rank", response_model=RankResponse, responses=problems)
    async def rank(request: Request) -> Response:
        """Rank one group: JSON with base64 images, or multipart with a JSON part `request` and parts `images`."""
        _authorize(request, gateway)
        limited = _limited(request, int(gateway.config.limits.max_body_mb * 1e6))
        started = time.perf_counter()
        kind = _content_type(request.headers.get("content-type", ""))[0]
        if kind == "application/json":
            options, images = await _from_json(await limited.body(), gateway.limits)
        elif kind == "multipart/form-data":
            options, images = await _from_multipart(limited, gateway.limits)
        else:
            raise UnsupportedContentError(f"content type {kind!r}; send application/json or multipart/form-data")
        if options.request_id is None:
            options = options.model_copy(update={"request_id": _request_id(request)})
        decode_ms = (time.perf_counter() - started) * 1e3
        response = await gateway.rank_group(options, images, {"decode": decode_ms})
        return Response(response.model_dump_json(exclude_none=True), media_type="application/json")

    @app.get("/v1/models", response_model=ModelList, responses=problems)
    async def models(request: Request) -> Response:
        """The rewards and mixtures of this service."""
        _authorize(request, gateway)
        return Response((await gateway.list_models()).model_dump_json(), media_type="application/json")

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """The gateway answers. Says nothing about rewards."""
        return {"status": "live"}

    @app.get("/health/ready", response_model=Readiness, responses={503: {"model": Readiness}})
    async def ready() -> Response:
        """Scores one image with every reward; 503 unless all of them could."""
        readiness = await gateway.probe_rewards()
        status = 200 if readiness.ready else 503
        return Response(readiness.model_dump_json(), status, media_type="application/json")

    add_page(app)
    app.add_exception_handler(RewardsError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unforeseen)
    return app


def _authorize(request: Request, gateway: Gateway) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    offered = key if scheme.lower() == "bearer" else request.headers.get("x-api-key")
    if not key_is_known(offered, gateway.key_digests):
        raise AuthenticationError("send an API key as `Authorization: Bearer KEY`")


def _request_id(request: Request) -> str:
    """The caller's `x-request-id` where it is a sensible one, else a new one that stays with this request.

    Serve's proxy gives a request without one its own, and sends it back in the answer's headers.
    """
    if not hasattr(request.state, "request_id"):
        offered = request.headers.get("x-request-id", "")
        fits = offered.isascii() and 0 < len(offered) <= 128 and all(c.isalnum() or c in "._:-" for c in offered)
        request.state.request_id = offered if fits else uuid.uuid4().hex
    return request.state.request_id


def _limited(request: Request, limit: int) -> Request:
    """The same request, whose body raises as soon as it is longer than `limit` bytes, announced or not."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise RequestTooLargeError(f"the body has {announced} bytes; at most {limit} are taken")
    received = 0

    async def receive() -> Any:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise RequestTooLargeError(f"the body has more than the {limit} bytes that are taken")
        return message

    return Request(request.scope, receive)


async def _from_json(body: bytes, limits: ImageLimits) -> tuple[RankOptions, list[np.ndarray]]:
    request = await asyncio.to_thread(parse, RankRequest, body)
    images = await asyncio.gather(
        *(
            asyncio.to_thread(from_base64, text, field=f"images[{index}]", limits=limits)
            for index, text in enumerate(request.images)
        )
    )
    return request, list(images)


async def _from_multipart(request: Request, limits: ImageLimits) -> tuple[RankOptions, list[np.ndarray]]:
    try:
        form = await request.form(max_files=MAX_IMAGES + 1, max_fields=2, max_part_size=1_000_000)
    except HTTPException as error:  # Starlette's word for a malformed or oversized form
        raise InvalidRequestError(f"the multipart body cannot be read: {error.detail}") from None
    try:
        unknown = sorted(set(form) - {"request", "images"})
        if unknown:
            raise InvalidRequestError(f"unknown part {unknown[0]!r}; the parts are `request` and `images`")
        head = form.get("request")
        if head is None:
            raise InvalidRequestError("the part `request` (JSON) is missing", field="request")
        options = parse(RankOptions, await head.read() if isinstance(head, UploadFile) else head)
        uploads = form.getlist("images")
        images = await asyncio.gather(*(_from_part(part, f"images[{i}]", limits) for i, part in enumerate(uploads)))
    finally:
        await form.close()
    return options, list(images)


async def _from_part(part: UploadFile | str, field: str, limits: ImageLimits) -> np.ndarray:
    if isinstance(part, str):
        raise InvalidImageError(f"{field} is a text field; send it as a file part (with a filename)", field=field)
    data = await part.read()
    kind, parameters = _content_type(part.content_type or "")
    if kind != RGB8:
        return await asyncio.to_thread(decode, data, field=field, limits=limits)
    width, height = parameters.get("width", ""), parameters.get("height", "")
    if not (width.isdecimal() and height.isdecimal() and len(width + height) <= 12):
        raise InvalidImageError(f"{field}: {RGB8} needs the parameters width and height", field=field)
    return from_rgb8(data, int(width), int(height), field=field, limits=limits)


def _content_type(header: str) -> tuple[str, dict[str, str]]:
    headers = Headers()
    headers["content-type"] = header
    return headers.get_content_type() if header else "", dict(headers.get_params(failobj=[])[1:])


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RewardsError)  # registered for no other
    problem = Problem(
        type=f"urn:drpo-rewards:{error.code}",
        title=error.title,
        status=error.http_status,
        detail=str(error),
        instance=request.url.path,
        code=error.code,
        request_id=error.request_id or _request_id(request),
        reward=error.reward,
        field=error.field,
        retry_after_s=error.retry_after_s,
    )
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, error.http_status, headers, media_type=PROBLEM)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, wrong method) in the same form."""
    assert isinstance(error, HTTPException)
    problem = Problem(
        title=error.detail, status=error.status_code, detail=error.detail, instance=request.url.path, code="http"
    )
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, error.status_code, dict(error.headers or {}), media_type=PROBLEM)


async def _on_unforeseen(request: Request, error: Exception) -> Response:
    logger.error("unforeseen error in %s", request.url.path, exc_info=error)
    return await _on_error(request, InternalError("something unforeseen went wrong; the service's log has it"))
