"""What a transport is, and which one an address means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np

from drpo_rewards.api.contract import ModelInfo, Readiness
from drpo_rewards.operations import AnswerT, Operation, OptionsT

Payload = np.ndarray | bytes  # an (H, W, 3) uint8 picture, or an image file as it is


class Transport(Protocol):
    """One attempt at a call. Every failure is a RewardsError; retries and deadlines are the client's business."""

    async def perform(
        self, operation: Operation[OptionsT, AnswerT], options: OptionsT, images: Sequence[Payload], timeout_s: float
    ) -> AnswerT: ...

    async def models(self, timeout_s: float) -> list[ModelInfo]: ...

    async def ready(self, timeout_s: float) -> Readiness: ...

    async def close(self) -> None: ...


def open_transport(address: str, api_key: str | None) -> Transport:
    """`http(s)://host:port[/app]`, `grpc://host:port[/app]` or `serve://app`; connects when first used.

    Each transport is imported only here, so that a client of one needs nothing of the others.
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and parts.netloc:
        from drpo_rewards.client.transports.http import HttpTransport

        return HttpTransport(address.rstrip("/"), api_key)
    if parts.scheme == "grpc" and parts.netloc:
        from drpo_rewards.client.transports.grpc import GrpcTransport

        return GrpcTransport(parts.netloc, parts.path.strip("/") or "ranking", api_key)
    if parts.scheme == "serve" and parts.netloc:
        from drpo_rewards.client.transports.serve import ServeTransport

        return ServeTransport(parts.netloc)
    raise ValueError(f"cannot use the address {address!r}; write http://HOST:PORT, grpc://HOST:PORT or serve://APP")
