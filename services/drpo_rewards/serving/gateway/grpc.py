"""The gRPC methods of the gateway, and those of the standard health service (grpc.health.v1)."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from ray.serve.grpc_util import RayServegRPCContext

from drpo_rewards.api.images import DecodingLimits, from_rgb8
from drpo_rewards.errors import UNEXPECTED, InternalError, RewardsError
from drpo_rewards.operations import OPERATIONS, Operation
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.call import Origin
from drpo_rewards.serving.gateway.decoding import Content
from drpo_rewards.serving.gateway.gateway import Gateway
from drpo_rewards.serving.gateway.problem_documents import is_request_id
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.errors import ERROR_METADATA, error_to_metadata
from drpo_rewards.wire.images import image_from_proto
from drpo_rewards.wire.models import models_to_proto, readiness_to_proto

logger = logging.getLogger("ray.serve")

# The functions that register these calls with Serve's proxy.
SERVICER_FUNCTIONS = [
    "drpo_rewards.v1.ranking_pb2_grpc.add_RankingServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
]

# How often the health service repeats the state to a watcher.
WATCH_INTERVAL_S = 5.0

# The names that the health service knows: the whole server, and its one service.
SERVICES = ("", pb.DESCRIPTOR.services_by_name["Ranking"].full_name)


class GrpcMethods:
    """The gateway's gRPC methods, under their names in the proto. `_add_operations` adds one for each operation.

    Ray Serve calls each by its name, and passes the argument `grpc_context`.
    """

    gateway: Gateway

    async def ListModels(
        self, request: pb.ListModelsRequest, grpc_context: RayServegRPCContext
    ) -> pb.ListModelsResponse:
        try:
            self.gateway.authorize(_origin(grpc_context))
            return models_to_proto((await self.gateway.list_models()).models)
        except Exception as error:
            _set_status(error, grpc_context)
            return pb.ListModelsResponse()

    async def Ready(self, request: pb.ReadyRequest, grpc_context: RayServegRPCContext) -> pb.ReadyResponse:
        return readiness_to_proto(await self.gateway.probe_rewards())

    async def Check(
        self, request: health_pb2.HealthCheckRequest, grpc_context: RayServegRPCContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in SERVICES:
            grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
            grpc_context.set_details(f"no service {request.service[:100]!r}; the services are {SERVICES}")
            return health_pb2.HealthCheckResponse()
        return health_pb2.HealthCheckResponse(status=await self._health(request))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        while True:
            yield health_pb2.HealthCheckResponse(status=await self._health(request))
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _health(self, request: health_pb2.HealthCheckRequest) -> int:
        states = health_pb2.HealthCheckResponse
        if request.service not in SERVICES:
            return states.SERVICE_UNKNOWN
        return states.SERVING if (await self.gateway.probe_rewards()).ready else states.NOT_SERVING


def _make_method(operation: Operation[Any, Any]) -> Callable[..., Any]:
    """Make the gRPC method of one operation. After an error it sets the call's status and returns an empty message."""

    async def method(self: GrpcMethods, request: Any, grpc_context: RayServegRPCContext) -> Any:
        async def read(allowance: Allowance) -> tuple[Any, Sequence[np.ndarray]]:
            options = operation.options_from_proto(request)
            images = operation.images_of(request)
            options.check_count(len(images))  # before any image is decoded
            fields = [options.image_field(index) for index in range(len(images))]
            contents = [_read(image, field, allowance) for image, field in zip(images, fields, strict=True)]
            return options, await self.gateway.decoders.decode_all(contents, fields, allowance)

        try:
            origin = _origin(grpc_context, request.ByteSize())
            return operation.response_to_proto(await self.gateway.perform(operation, origin, read))
        except Exception as error:
            _set_status(error, grpc_context)
            return operation.response_message()

    return method


def _add_operations() -> None:
    for operation in OPERATIONS.values():
        if operation.rpc_name is not None:
            setattr(GrpcMethods, operation.rpc_name, _make_method(operation))


_add_operations()


def _origin(context: RayServegRPCContext, message_bytes: int = 0) -> Origin:
    metadata = dict(context.invocation_metadata())
    scheme, _, key = metadata.get("authorization", "").partition(" ")
    # Serve's proxy adds an id to a call without one, and sends it back in the trailing metadata.
    offered = dict(context.trailing_metadata()).get("request_id", "")
    request_id = offered if is_request_id(offered) else uuid.uuid4().hex
    return Origin("grpc", request_id, key if scheme.lower() == "bearer" else None, message_bytes)


def _read(image: pb.Image, field: str, check: DecodingLimits) -> Content:
    """Return a file's bytes. RGB8 is viewed as (H, W, 3) uint8, without copying."""
    content = image_from_proto(image, field)
    return from_rgb8(*content, field=field, limits=check) if isinstance(content, tuple) else content


def _set_status(error: Exception, context: RayServegRPCContext) -> None:
    """Set the call's status from an error, without internal details (traceback, host, process id)."""
    if not isinstance(error, RewardsError):
        logger.error("unexpected error in a gRPC call", exc_info=error)
        error = InternalError(UNEXPECTED)
    context.set_code(getattr(grpc.StatusCode, error.grpc_status))
    context.set_details(str(error))
    context.set_trailing_metadata([(ERROR_METADATA, error_to_metadata(error))])
