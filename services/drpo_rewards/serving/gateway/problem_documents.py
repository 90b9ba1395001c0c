"""Errors over HTTP, as problem documents (RFC 9457)."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from drpo_rewards.api.contract import Problem
from drpo_rewards.errors import UNEXPECTED, AuthenticationError, InternalError, RewardsError, UnsupportedContentError

logger = logging.getLogger("ray.serve")

PROBLEM = "application/problem+json"


def handle_errors(app: FastAPI) -> None:
    """Answer every error of the app as a problem document."""
    app.add_exception_handler(RewardsError, answer_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


def request_id_of(request: Request) -> str:
    """Return the id of a request, which the middleware `RequestIds` has given it."""
    return request.state.request_id


def is_request_id(text: str) -> bool:
    """Return whether a text may be a request's id: 1 to 128 letters, digits or `._:-`."""
    return text.isascii() and 0 < len(text) <= 128 and all(c.isalnum() or c in "._:-" for c in text)


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer a RewardsError."""
    assert isinstance(error, RewardsError)  # it is registered for this class only
    problem = Problem(
        type=f"urn:drpo-rewards:{error.code}",
        title=error.title,
        status=error.http_status,
        detail=str(error),
        instance=request.url.path,
        code=error.code,
        request_id=error.request_id or request_id_of(request),
        reward=error.reward,
        field=error.field,
        retry_after_s=error.retry_after_s,
    )
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, UnsupportedContentError):
        headers["accept-encoding"] = "gzip"
    return _make_response(problem, headers)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Answer Starlette's own errors (no such path, wrong method) in the same form."""
    assert isinstance(error, HTTPException)
    problem = Problem(
        title=error.detail,
        status=error.status_code,
        detail=error.detail,
        instance=request.url.path,
        code="http",
        request_id=request_id_of(request),
    )
    return _make_response(problem, dict(error.headers or {}))


async def _on_unexpected(request: Request, error: Exception) -> Response:
    logger.error("unexpected error in %s", request.url.path, exc_info=error)
    response = await answer_error(request, InternalError(UNEXPECTED))
    response.headers["x-request-id"] = request_id_of(request)  # this answer passes no middleware
    return response


def _make_response(problem: Problem, headers: dict[str, Any]) -> Response:
    return Response(problem.model_dump_json(exclude_none=True), problem.status, headers, media_type=PROBLEM)
