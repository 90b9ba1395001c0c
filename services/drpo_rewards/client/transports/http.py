"""The HTTP transport. In its multipart bodies, arrays are plain RGB8: lossless, and faster than any file format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from pydantic import ValidationError

from drpo_rewards.api.contract import ModelInfo, ModelList, ModelT, Problem, Readiness
from drpo_rewards.client.proxies import environment_is_read
from drpo_rewards.client.retries import parse_retry_after
from drpo_rewards.client.transports.base import Payload
from drpo_rewards.errors import (
    AuthenticationError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    RankingTimeoutError,
    RewardsError,
    ServiceUnavailableError,
    from_code,
)
from drpo_rewards.operations.base import Operation, OptionsT, ResponseT


class HttpTransport:
    """Calls `POST /v1/NAME` for each operation."""

    def __init__(self, url: str, api_key: str | None, use_proxies: bool) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        # By default the environment's proxies are ignored: they are for the web, and a ranking service runs nearby.
        with environment_is_read():
            self._client = httpx.AsyncClient(base_url=url, headers=headers, trust_env=use_proxies)

    async def perform(
        self, operation: Operation[OptionsT, ResponseT], options: OptionsT, images: Sequence[Payload], timeout_s: float
    ) -> ResponseT:
        parts: list[tuple[str, Any]] = [
            ("request", (None, options.model_dump_json(exclude_none=True), "application/json"))
        ]
        parts += [("images", _part(index, image)) for index, image in enumerate(images)]
        headers = {"x-request-id": options.request_id} if options.request_id else {}
        response = await self._send("POST", f"/v1/{operation.name}", timeout_s, files=parts, headers=headers)
        return _read(operation.response, _check_response(response))

    async def models(self, timeout_s: float) -> list[ModelInfo]:
        return _read(ModelList, _check_response(await self._send("GET", "/v1/models", timeout_s))).models

    async def ready(self, timeout_s: float) -> Readiness:
        response = await self._send("GET", "/health/ready", timeout_s)
        # 503 with a readiness document is the answer "not ready"; 503 with anything else is a failure.
        if response.status_code == 503 and b'"rewards"' in response.content:
            return _read(Readiness, response)
        return _read(Readiness, _check_response(response))

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, method: str, path: str, timeout_s: float, **content: Any) -> httpx.Response:
        request = self._client.build_request(method, path, timeout=timeout_s, **content)
        request.read()  # joins the parts: sending one piece takes half the time of sending several for each image
        try:
            return await self._client.send(request)
        except httpx.TimeoutException:
            raise RankingTimeoutError(f"{self.url} did not answer within {timeout_s:.1f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnavailableError(f"cannot reach {self.url}: {reason}") from None


def _part(index: int, image: Payload) -> tuple[str, bytes, str]:
    if isinstance(image, np.ndarray):
        height, width, _ = image.shape
        return (f"{index}.rgb8", image.tobytes(), f"application/x-rgb8; width={width}; height={height}")
    return (str(index), image, "application/octet-stream")


def _read(model: type[ModelT], response: httpx.Response) -> ModelT:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise InternalError(f"{response.url} did not send a valid {model.__name__}: {error}") from None


def _check_response(response: httpx.Response) -> httpx.Response:
    """Return a successful response, or raise the error in its problem document."""
    if response.is_success:
        return response
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            pass
        else:
            raise from_code(
                problem.code if problem.code != "http" else _error_class(response.status_code).code,
                problem.detail,
                reward=problem.reward,
                field=problem.field,
                retry_after_s=problem.retry_after_s,
                request_id=problem.request_id,
            )
    # This answer is not from the gateway, but from a proxy on the way.
    raise _error_class(response.status_code)(
        f"{response.url} answered {response.status_code}: {response.text[:200]}",
        retry_after_s=parse_retry_after(response.headers.get("retry-after", "")),
    )


def _error_class(status: int) -> type[RewardsError]:
    if status == 429:
        return OverloadedError
    if status == 408:
        return RankingTimeoutError
    if status in (401, 403):
        return AuthenticationError
    return ServiceUnavailableError if status >= 500 else InvalidRequestError
