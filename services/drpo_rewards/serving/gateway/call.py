"""What the gateway knows of a call before it has read it."""

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
        transport: by which way it came.
        request_id: used where the request itself names none.
        key: the API key that the caller sent.
        body_bytes: size of the body, as far as it is known before the body is read.
    """

    transport: Literal["http", "grpc", "serve"]
    request_id: str
    key: str | None = None
    body_bytes: int = 0


# Reads a request's options and images, and asks the allowance before it takes memory for them.
Reader = Callable[[Allowance], Awaitable[tuple[OptionsT, Sequence[np.ndarray]]]]
