"""The interface of a transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from drpo_rewards.api.contract import ModelInfo, Readiness
from drpo_rewards.operations.base import Operation, OptionsT, ResponseT

Payload = np.ndarray | bytes  # an (H, W, 3) uint8 picture, or an image file as it is


class Transport(Protocol):
    """Makes one attempt at a call. Every failure is a RewardsError; the client retries and keeps the deadline."""

    async def perform(
        self, operation: Operation[OptionsT, ResponseT], options: OptionsT, images: Sequence[Payload], timeout_s: float
    ) -> ResponseT:
        """Perform an operation.

        Args:
            operation: the operation.
            options: everything in the request except its images.
            images: the request's images in order.
            timeout_s: seconds for this attempt.
        """
        ...

    async def models(self, timeout_s: float) -> list[ModelInfo]:
        """List the service's rewards and mixtures."""
        ...

    async def ready(self, timeout_s: float) -> Readiness:
        """Let every reward score an image."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
