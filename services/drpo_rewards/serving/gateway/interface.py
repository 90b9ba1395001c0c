"""What the HTTP routes and the gRPC methods know of the gateway."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from drpo_rewards.api.contract import ModelList, Readiness
from drpo_rewards.api.images import SizeCheck
from drpo_rewards.operations import AnswerT, Operation, OptionsT
from drpo_rewards.serving.config import ServiceConfig


@dataclass(frozen=True)
class Origin:
    """Where a call comes from. `request_id` is used where the request itself names none."""

    transport: Literal["http", "grpc", "serve"]
    request_id: str
    key: str | None = None  # the API key that it offers
    body_bytes: int = 0  # as far as they are known before the body is read


class Allowed(SizeCheck, Protocol):
    """Says what a request may bring: the size of each image before it is decoded, and that of its body as it comes."""

    def check_body(self, size: int) -> None:
        """Raise a RewardsError where a body of so many bytes is not taken."""
        ...


# Reads a request's options and images, asking first whether they are allowed.
Reader = Callable[[Allowed], Awaitable[tuple[OptionsT, Sequence[np.ndarray]]]]


class GatewayInterface(ABC):
    """Implemented by the Gateway alone; here so that its parts need not import it."""

    config: ServiceConfig

    @abstractmethod
    async def perform(self, operation: Operation[OptionsT, AnswerT], origin: Origin, read: Reader[OptionsT]) -> AnswerT:
        """One call from the key to the answer. Every failure is a RewardsError that carries the request id."""

    @abstractmethod
    def authorize(self, origin: Origin) -> None:
        """Raise AuthenticationError unless the call may be made."""

    @abstractmethod
    async def list_models(self) -> ModelList:
        """Every reward, then every mixture."""

    @abstractmethod
    async def probe_rewards(self) -> Readiness:
        """Whether every reward could really score an image just now."""

    @abstractmethod
    def metrics_text(self) -> bytes:
        """The counters in Prometheus' text format."""
