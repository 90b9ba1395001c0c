"""The gRPC methods of the gateway, and those of the standard health service (grpc.health.v1).

A call is admitted before its message is read: until then, all but its start waits at its sender. A method reads raw
bytes and parses them itself, because a message does not know its size: to ask for it takes as long as to write it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from drpo_rewards.api.images import DecodingLimits, from_rgb8
from drpo_rewards.errors import UNEXPECTED, IncompleteRequestError, InternalError, InvalidRequestError, RewardsError
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

RANKING = pb.DESCRIPTOR.services_by_name["Ranking"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]

# The names that the health service knows: the whole server, and its one service.
SERVICES = ("", RANKING.full_name)

# How often the health service repeats the state to a watcher.
WATCH_INTERVAL_S = 5.0

# gRPC itself refuses a message above this many times the limit on bodies, with RESOURCE_EXHAUSTED and no more details.
# Up to that the gateway refuses it, with its own error. Small limits, as of tests, leave room for an ordinary message.
REFUSED_BY_GRPC = 2
LEAST_MESSAGE_BYTES = 64_000_000

# How much of a message gRPC takes before the gateway asks for it. By default it allows more, the faster a connection
# is, and its read buffer grows with that, beyond its own setting for it (grpc/grpc issue 42194, seen in grpcio 1.85.3).
# The buffer is kept while a connection is open: up to 60 MB each. A message that is asked for is let in whole.
LOOKAHEAD_BYTES = 1_000_000

# A message has no announced length and no visible progress, so it has a time as a whole: so many times the longest
# pause in a body.
MESSAGE_IDLE_TIMES = 10

Context: TypeAlias = grpc.aio.ServicerContext
MessageT = TypeVar("MessageT", bound=Message)
Method = Callable[[Context, Origin], Awaitable[Message]]


def build_server(gateway: Gateway, application: str) -> grpc.aio.Server:
    """Build the gRPC server of one gateway. It listens nowhere yet.

    Args:
        gateway: what answers the calls.
        application: the name of the service. A call that names another one in its metadata is refused.
    """
    limits = gateway.config.limits
    largest = min(max(int(REFUSED_BY_GRPC * limits.max_body_mb * 1e6), LEAST_MESSAGE_BYTES), 2**31 - 1)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),
            ("grpc.http2.bdp_probe", 0),  # which would measure connections, to look further ahead
            ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
        ]
    )
    methods = {
        operation.rpc_name: _make_method(gateway, operation)
        for operation in OPERATIONS.values()
        if operation.rpc_name is not None
    }

    async def list_models(context: Context, origin: Origin) -> Message:
        gateway.authorize(origin)
        return models_to_proto((await gateway.list_models()).models)

    async def ready(context: Context, origin: Origin) -> Message:
        return readiness_to_proto(await gateway.probe_rewards())

    methods |= {"ListModels": list_models, "Ready": ready}
    # On the wire a call with one message and a stream of one message are the same. A method of the second kind is
    # called before the message has arrived.
    handlers = {
        name: grpc.stream_unary_rpc_method_handler(_make_behavior(method, application))
        for name, method in methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(RANKING.full_name, handlers),))
    server.add_generic_rpc_handlers((Health(gateway).handler(),))
    return server


class Health:
    """The standard health service: the state of the rewards."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what answers the calls of this service."""
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        return grpc.method_handlers_generic_handler(
            HEALTH.full_name,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check, response_serializer=serialize),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch, response_serializer=serialize),
            },
        )

    async def _check(self, data: bytes, context: Context) -> health_pb2.HealthCheckResponse:
        request = await self._parse(data, context)
        if request.service not in SERVICES:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no service {request.service[:100]!r}; the services are {SERVICES}"
            )
        return health_pb2.HealthCheckResponse(status=await self._find_state(request))

    async def _watch(self, data: bytes, context: Context) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        request = await self._parse(data, context)
        while True:
            yield health_pb2.HealthCheckResponse(status=await self._find_state(request))
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _parse(self, data: bytes, context: Context) -> health_pb2.HealthCheckRequest:
        try:
            return _parse(health_pb2.HealthCheckRequest, data)
        except InvalidRequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _find_state(self, request: health_pb2.HealthCheckRequest) -> int:
        states = health_pb2.HealthCheckResponse
        if request.service not in SERVICES:
            return states.SERVICE_UNKNOWN
        return states.SERVING if (await self._gateway.probe_rewards()).ready else states.NOT_SERVING


def _make_behavior(method: Method, application: str) -> Callable[[Any, Context], Awaitable[bytes]]:
    """Make the function that gRPC calls. After an error it sets the call's status."""

    async def behave(requests: Any, context: Context) -> bytes:
        metadata = _read_metadata(context)
        origin = _origin(metadata)
        context.set_trailing_metadata([("request_id", origin.request_id)])
        named = metadata.get("application", application)
        if named != application:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details(f"this service is {application!r}, not {named[:100]!r}; name it in `application`")
            return b""
        try:
            return (await method(context, origin)).SerializeToString()
        except Exception as error:
            _set_status(error, context, origin)
            return b""

    return behave


def _make_method(gateway: Gateway, operation: Operation[Any, Any]) -> Method:
    """Make the gRPC method of one operation."""
    message_class = GetMessageClass(RANKING.methods_by_name[operation.rpc_name].input_type)
    message_s = MESSAGE_IDLE_TIMES * gateway.config.limits.body_idle_s

    async def perform(context: Context, origin: Origin) -> Message:
        async def read(allowance: Allowance) -> tuple[Any, Sequence[np.ndarray]]:
            request = _parse(message_class, await _receive(context, message_s, allowance))
            options = operation.options_from_proto(request)
            images = operation.images_of(request)
            options.check_count(len(images))  # before any image is decoded
            fields = [options.image_field(index) for index in range(len(images))]
            contents = [_read(image, field, allowance) for image, field in zip(images, fields, strict=True)]
            del request, images  # what is still needed of the message is in `contents`
            return options, await gateway.decoders.decode_all(contents, fields, allowance)

        return operation.response_to_proto(await gateway.perform(operation, origin, read))

    return perform


async def _receive(context: Context, seconds: float, allowance: Allowance) -> bytes:
    """Receive the call's message, and reserve memory for it."""
    try:
        async with asyncio.timeout(seconds):
            data = await context.read()
    except TimeoutError:
        raise IncompleteRequestError(f"the message did not arrive within {seconds:g} s; send it again") from None
    if not isinstance(data, bytes):
        raise InvalidRequestError("the call has no message")
    allowance.check_body(len(data))
    return data


def _parse(message_class: type[MessageT], data: bytes) -> MessageT:
    try:
        return message_class.FromString(data)
    except DecodeError:
        raise InvalidRequestError(f"the bytes are not a message of the type {message_class.__name__}") from None


def _read_metadata(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _origin(metadata: dict[str, str]) -> Origin:
    scheme, _, key = metadata.get("authorization", "").partition(" ")
    offered = metadata.get("request_id", "")
    request_id = offered if is_request_id(offered) else uuid.uuid4().hex
    return Origin("grpc", request_id, key if scheme.lower() == "bearer" else None)


def _read(image: pb.Image, field: str, check: DecodingLimits) -> Content:
    """Return a file's bytes. RGB8 is viewed as (H, W, 3) uint8, without copying."""
    content = image_from_proto(image, field)
    return from_rgb8(*content, field=field, limits=check) if isinstance(content, tuple) else content


def _set_status(error: Exception, context: Context, origin: Origin) -> None:
    """Set the call's status from an error, without internal details (traceback, host, process id)."""
    if not isinstance(error, RewardsError):
        logger.error("unexpected error in a gRPC call", exc_info=error)
        error = InternalError(UNEXPECTED, request_id=origin.request_id)
    context.set_code(getattr(grpc.StatusCode, error.grpc_status))
    context.set_details(str(error))
    context.set_trailing_metadata([("request_id", origin.request_id), (ERROR_METADATA, error_to_metadata(error))])
