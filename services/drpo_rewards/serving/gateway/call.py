"""What the gateway knows about a call before it reads the body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from drpo_rewards.operations.base import OptionsT
from drpo_rewards.serving.gateway.admission import Allowance


@dataclass(frozen=True)
class Origin:
    """Where a call comes from.

    Attributes:
        transport: how the call arrived.
        request_id: the id that is used if the request itself names none.
        key: the API key that the caller sent; None without one.
        body_bytes: the announced size of the body; 0 if unknown.
    """

    transport: Literal["http", "grpc", "serve"]
    request_id: str
    key: str | None = None
    body_bytes: int = 0


# Reads a request's options and images. It reserves memory for the images before it decodes them.
Reader = Callable[[Allowance], Awaitable[tuple[OptionsT, Sequence[np.ndarray]]]]
