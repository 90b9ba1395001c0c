"""The transport by Ray Serve handle, the fastest one inside the service's Ray cluster. Only this one needs Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException

from drpo_rewards.api.contract import ModelInfo, Readiness
from drpo_rewards.api.images import decode
from drpo_rewards.client.transports.base import Payload
from drpo_rewards.cluster.handles import Caller
from drpo_rewards.errors import InternalError, OverloadedError, RewardsError, ServiceUnavailableError
from drpo_rewards.operations.base import Operation, OptionsT, ResponseT


class ServeTransport:
    """Calls the gateway's methods directly; arrays travel through Ray's shared memory."""

    def __init__(self, application: str) -> None:
        self.application = application
        self._caller: Caller | None = None

    async def perform(
        self, operation: Operation[OptionsT, ResponseT], options: OptionsT, images: Sequence[Payload], timeout_s: float
    ) -> ResponseT:
        if not isinstance(images, np.ndarray):
            fields = [options.image_field(index) for index in range(len(images))]
            images = await asyncio.to_thread(_decode_all, images, fields)
        # exclude_unset, so that the gateway fills in its own defaults, as it does for the other transports
        answer = await self._call("call", images, operation.name, options.model_dump(exclude_unset=True))
        return operation.response.model_validate(answer)

    async def models(self, timeout_s: float) -> list[ModelInfo]:
        return [ModelInfo.model_validate(info) for info in await self._call("models")]

    async def ready(self, timeout_s: float) -> Readiness:
        return Readiness.model_validate(await self._call("ready"))

    async def close(self) -> None:
        self._caller = None

    async def _call(self, method: str, *arguments: Any) -> Any:
        if self._caller is None:
            self._caller = await asyncio.to_thread(self._connect)
        try:
            return await self._caller.call(method, *arguments)
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, RewardsError):
                raise cause from None
            raise InternalError(f"the gateway of {self.application!r} failed: {cause}") from error
        except BackPressureError as error:
            raise OverloadedError(f"the queue of {self.application!r} is full: {error}") from None
        except RayServeException as error:
            self._caller = None  # the application may be deployed again
            raise ServiceUnavailableError(f"{self.application!r} is not available: {error}") from None
        except RayError as error:
            raise ServiceUnavailableError(f"a gateway of {self.application!r} died: {error}") from None

    def _connect(self) -> Caller:
        if not ray.is_initialized():
            raise ServiceUnavailableError(
                f"serve://{self.application} needs a Ray that is initialised in this process; call ray.init(), or use "
                f"an http:// or grpc:// address"
            )
        try:
            return Caller(serve.get_app_handle(self.application), hands_on=True)
        except RayServeException as error:
            raise ServiceUnavailableError(f"no application {self.application!r} is deployed: {error}") from None


def _decode_all(images: Sequence[Payload], fields: Sequence[str]) -> list[np.ndarray]:
    return [
        decode(image, field=field) if isinstance(image, bytes) else image
        for image, field in zip(images, fields, strict=True)
    ]
