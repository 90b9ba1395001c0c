"""The gRPC methods of the gateway, and those of the standard health service (grpc.health.v1)."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from ray.serve.grpc_util import RayServegRPCContext

from drpo_rewards import wire
from drpo_rewards.api.images import SizeCheck, decode, from_rgb8
from drpo_rewards.errors import InternalError, RewardsError
from drpo_rewards.operations import COMPARE, RANK, RERANK, SCORE, Operation
from drpo_rewards.serving.gateway.interface import Allowed, GatewayInterface, Origin
from drpo_rewards.serving.gateway.problem_documents import is_request_id
from drpo_rewards.v1 import ranking_pb2 as pb

logger = logging.getLogger("ray.serve")

# What Serve's proxy has to know to take these calls.
SERVICER_FUNCTIONS = [
    "drpo_rewards.v1.ranking_pb2_grpc.add_RankingServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
]

# How often a watcher of the health service is told the state, where it does not change.
WATCH_INTERVAL_S = 5.0

# What the health service answers for: everything, or the one service that there is.
SERVICES = ("", pb.DESCRIPTOR.services_by_name["Ranking"].full_name)


class GrpcMethods(GatewayInterface):
    """The gateway's gRPC side; method names are the proto's. `grpc_context` is what Serve calls the call's context."""

    async def Rank(self, request: pb.RankRequest, grpc_context: RayServegRPCContext) -> pb.RankResponse:
        return await self._operation(RANK, request, grpc_context, pb.RankResponse)

    async def Score(self, request: pb.ScoreRequest, grpc_context: RayServegRPCContext) -> pb.ScoreResponse:
        return await self._operation(SCORE, request, grpc_context, pb.ScoreResponse)

    async def Compare(self, request: pb.CompareRequest, grpc_context: RayServegRPCContext) -> pb.CompareResponse:
        return await self._operation(COMPARE, request, grpc_context, pb.CompareResponse)

    async def Rerank(self, request: pb.RerankRequest, grpc_context: RayServegRPCContext) -> pb.RerankResponse:
        return await self._operation(RERANK, request, grpc_context, pb.RerankResponse)

    async def ListModels(
        self, request: pb.ListModelsRequest, grpc_context: RayServegRPCContext
    ) -> pb.ListModelsResponse:
        try:
            self.authorize(_origin(grpc_context))
            return wire.models_to_proto((await self.list_models()).models)
        except Exception as error:
            _report(error, grpc_context)
            return pb.ListModelsResponse()

    async def Ready(self, request: pb.ReadyRequest, grpc_context: RayServegRPCContext) -> pb.ReadyResponse:
        return wire.readiness_to_proto(await self.probe_rewards())

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

    async def _operation(
        self, operation: Operation[Any, Any], request: Any, context: RayServegRPCContext, empty: type
    ) -> Any:
        """Any of the four: perform it, or set the call's status and answer nothing."""

        async def read(allowed: Allowed) -> tuple[Any, Sequence[np.ndarray]]:
            options = wire.options_from_proto(request)
            images = wire.images_of(request)
            options.check_count(len(images))  # before any work is done on them
            decoding = (_decoded(image, options.image_field(index), allowed) for index, image in enumerate(images))
            return options, await asyncio.gather(*decoding)

        try:
            return wire.answer_to_proto(await self.perform(operation, _origin(context, request.ByteSize()), read))
        except Exception as error:
            _report(error, context)
            return empty()

    async def _health(self, request: health_pb2.HealthCheckRequest) -> int:
        states = health_pb2.HealthCheckResponse
        if request.service not in SERVICES:
            return states.SERVICE_UNKNOWN
        return states.SERVING if (await self.probe_rewards()).ready else states.NOT_SERVING


def _origin(context: RayServegRPCContext, message_bytes: int = 0) -> Origin:
    metadata = dict(context.invocation_metadata())
    scheme, _, key = metadata.get("authorization", "").partition(" ")
    # Serve's proxy gives a call without an id its own, and sends it back in the trailing metadata.
    offered = dict(context.trailing_metadata()).get("request_id", "")
    request_id = offered if is_request_id(offered) else uuid.uuid4().hex
    return Origin("grpc", request_id, key if scheme.lower() == "bearer" else None, message_bytes)


async def _decoded(image: pb.Image, field: str, check: SizeCheck) -> np.ndarray:
    """(H, W, 3) uint8. RGB8 is only looked at; files are decoded in threads, side by side."""
    content = wire.image_from_proto(image, field)
    if isinstance(content, tuple):
        return from_rgb8(*content, field=field, limits=check)
    return await asyncio.to_thread(decode, content, field=field, limits=check)


def _report(error: Exception, context: RayServegRPCContext) -> None:
    """Set the call's status from an error. Nothing of the inside (traceback, host, pid) goes out."""
    if not isinstance(error, RewardsError):
        logger.error("unforeseen error in a gRPC call", exc_info=error)
        error = InternalError("something unforeseen went wrong; the service's log has it")
    context.set_code(getattr(grpc.StatusCode, error.grpc_status))
    context.set_details(str(error))
    context.set_trailing_metadata([(wire.ERROR_METADATA, wire.error_to_metadata(error))])
