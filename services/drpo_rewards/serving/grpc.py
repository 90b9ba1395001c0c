"""The gRPC methods of the gateway, and those of the standard health service (grpc.health.v1)."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from ray.serve.grpc_util import RayServegRPCContext

from drpo_rewards import wire
from drpo_rewards.contract import MAX_IMAGES, ModelList, RankOptions, RankResponse, Readiness
from drpo_rewards.errors import (
    AuthenticationError,
    InternalError,
    InvalidRequestError,
    RequestTooLargeError,
    RewardsError,
)
from drpo_rewards.images import ImageLimits, decode, from_rgb8
from drpo_rewards.serving.config import ServiceConfig, key_is_known
from drpo_rewards.v1 import ranking_pb2 as pb

logger = logging.getLogger("ray.serve")

# What Serve's proxy has to know to take these calls.
SERVICER_FUNCTIONS = [
    "drpo_rewards.v1.ranking_pb2_grpc.add_RankingServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
]

# How often a watcher of the health service is told the state, where it does not change.
WATCH_INTERVAL_S = 5.0


class GrpcMethods(ABC):
    """The gateway's gRPC side; method names are the proto's. `grpc_context` is what Serve calls the call's context."""

    config: ServiceConfig
    limits: ImageLimits
    key_digests: list[bytes]

    @abstractmethod
    async def rank_group(
        self, options: RankOptions, images: Sequence[np.ndarray], timings_ms: dict[str, float] | None = None
    ) -> RankResponse: ...

    @abstractmethod
    async def list_models(self) -> ModelList: ...

    @abstractmethod
    async def probe_rewards(self) -> Readiness: ...

    async def Rank(self, request: pb.RankRequest, grpc_context: RayServegRPCContext) -> pb.RankResponse:
        try:
            _authorize(self, grpc_context)
            limit = int(self.config.limits.max_body_mb * 1e6)
            if request.ByteSize() > limit:
                raise RequestTooLargeError(f"the message has {request.ByteSize()} bytes; at most {limit} are taken")
            options = wire.options_from_proto(request)
            if options.request_id is None:
                options = options.model_copy(update={"request_id": uuid.uuid4().hex})
            started = time.perf_counter()
            images = await _images(request, self.limits)
            decode_ms = (time.perf_counter() - started) * 1e3
            response = await self.rank_group(options, images, {"decode": decode_ms})
            return wire.response_to_proto(response)
        except Exception as error:
            _report(error, grpc_context)
            return pb.RankResponse()

    async def ListModels(
        self, request: pb.ListModelsRequest, grpc_context: RayServegRPCContext
    ) -> pb.ListModelsResponse:
        try:
            _authorize(self, grpc_context)
            return wire.models_to_proto((await self.list_models()).models)
        except Exception as error:
            _report(error, grpc_context)
            return pb.ListModelsResponse()

    async def Ready(self, request: pb.ReadyRequest, grpc_context: RayServegRPCContext) -> pb.ReadyResponse:
        return wire.readiness_to_proto(await self.probe_rewards())

    async def Check(self, request: Any, grpc_context: RayServegRPCContext) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=await _health(self))

    async def Watch(
        self, request: Any, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        while True:
            yield health_pb2.HealthCheckResponse(status=await _health(self))
            await asyncio.sleep(WATCH_INTERVAL_S)


async def _health(gateway: GrpcMethods) -> int:
    readiness = await gateway.probe_rewards()
    states = health_pb2.HealthCheckResponse
    return states.SERVING if readiness.ready else states.NOT_SERVING


def _authorize(gateway: GrpcMethods, context: RayServegRPCContext) -> None:
    metadata = dict(context.invocation_metadata())
    scheme, _, key = metadata.get("authorization", "").partition(" ")
    if not key_is_known(key if scheme.lower() == "bearer" else None, gateway.key_digests):
        raise AuthenticationError("send an API key as metadata `authorization: Bearer KEY`")


async def _images(request: pb.RankRequest, limits: ImageLimits) -> list[np.ndarray]:
    """Every image as (H, W, 3) uint8. RGB8 is only looked at; files are decoded in threads, side by side."""
    if len(request.images) > MAX_IMAGES:  # before any work is done on them
        raise InvalidRequestError(f"{len(request.images)} images; a group has at most {MAX_IMAGES}", field="images")

    async def one(index: int, image: pb.Image) -> np.ndarray:
        field = f"images[{index}]"
        content = wire.image_from_proto(image, field)
        if isinstance(content, tuple):
            return from_rgb8(*content, field=field, limits=limits)
        return await asyncio.to_thread(decode, content, field=field, limits=limits)

    return list(await asyncio.gather(*(one(index, image) for index, image in enumerate(request.images))))


def _report(error: Exception, context: RayServegRPCContext) -> None:
    """Set the call's status from an error. Nothing of the inside (traceback, host, pid) goes out."""
    if not isinstance(error, RewardsError):
        logger.error("unforeseen error in a gRPC call", exc_info=error)
        error = InternalError("something unforeseen went wrong; the service's log has it")
    context.set_code(getattr(grpc.StatusCode, error.grpc_status))
    context.set_details(str(error))
    context.set_trailing_metadata([(wire.ERROR_METADATA, wire.error_to_metadata(error))])
