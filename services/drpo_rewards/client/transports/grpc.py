"""The gRPC transport, the fastest one from outside a Ray cluster. Arrays travel as RGB8 messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from drpo_rewards.api.contract import ModelInfo, Readiness
from drpo_rewards.client.transports.base import Payload
from drpo_rewards.errors import (
    AuthenticationError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    RankingTimeoutError,
    RequestTooLargeError,
    RewardsError,
    ServiceUnavailableError,
)
from drpo_rewards.operations.base import Operation, OptionsT, ResponseT
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.v1 import ranking_pb2_grpc
from drpo_rewards.wire.errors import ERROR_METADATA, error_from_metadata
from drpo_rewards.wire.models import models_from_proto, readiness_from_proto

# The service has its own limit on a request; gRPC's default of 4 MB would refuse a group of ordinary pictures.
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

_BY_STATUS: dict[grpc.StatusCode, type[RewardsError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.UNIMPLEMENTED: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: AuthenticationError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: RankingTimeoutError,
    grpc.StatusCode.NOT_FOUND: ServiceUnavailableError,  # a service of another name
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailableError,
    grpc.StatusCode.CANCELLED: ServiceUnavailableError,
    # An INTERNAL of the gateway has our metadata; one without it comes from gRPC itself, whose peer died.
    grpc.StatusCode.INTERNAL: ServiceUnavailableError,
}


class GrpcTransport:
    """Calls the methods of drpo.rewards.v1.Ranking."""

    def __init__(self, target: str, application: str, api_key: str | None, use_proxies: bool) -> None:
        self.target = target
        self._options = [*_OPTIONS, ("grpc.enable_http_proxy", int(use_proxies))]
        self._metadata = [("application", application)]
        if api_key:
            self._metadata.append(("authorization", f"Bearer {api_key}"))
        self._channel: grpc.aio.Channel | None = None

    @property
    def _stub(self) -> Any:
        # A channel belongs to the event loop in which it is created, so it is created by the first call.
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.target, options=self._options)
        return ranking_pb2_grpc.RankingStub(self._channel)

    async def perform(
        self, operation: Operation[OptionsT, ResponseT], options: OptionsT, images: Sequence[Payload], timeout_s: float
    ) -> ResponseT:
        metadata = [("request_id", options.request_id)] if options.request_id else []
        request = operation.request_to_proto(options, images)
        message = await self._call(operation.stub_method(self._stub), request, timeout_s, metadata)
        return operation.response_from_proto(message)

    async def models(self, timeout_s: float) -> list[ModelInfo]:
        return models_from_proto(await self._call(self._stub.ListModels, pb.ListModelsRequest(), timeout_s))

    async def ready(self, timeout_s: float) -> Readiness:
        return readiness_from_proto(await self._call(self._stub.Ready, pb.ReadyRequest(), timeout_s))

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _call(self, method: Any, request: Any, timeout_s: float, metadata: Sequence[tuple[str, str]] = ()) -> Any:
        try:
            return await method(request, timeout=timeout_s, metadata=[*self._metadata, *metadata])
        except grpc.aio.AioRpcError as error:
            raise self._convert_error(error) from None

    def _convert_error(self, error: grpc.aio.AioRpcError) -> RewardsError:
        message = error.details() or error.code().name
        for key, value in error.trailing_metadata() or ():
            if key == ERROR_METADATA:
                return error_from_metadata(str(value), message)
        error_class = _BY_STATUS.get(error.code(), InternalError)
        if error_class is OverloadedError and "larger than max" in message:  # gRPC itself has refused the message
            error_class = RequestTooLargeError
        return error_class(f"{self.target} answered {error.code().name}: {message[:200]}")
