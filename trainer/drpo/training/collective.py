"""Communication between the workers of a run: what they gather and copy. `gradient_sum` adds up gradients.

This module uses only torch.distributed and does not need Ray. With a single worker nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from drpo.errors import DrpoError

T = TypeVar("T")


def world_size() -> int:
    """The number of workers that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this worker, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(value: Any) -> list[Any]:
    """The values of all workers, by rank, on every worker. The values must be small and picklable."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def call_together(call: Callable[[], T]) -> T:
    """Calls a function on every worker, and returns what it returns on this one.

    Raises:
        DrpoError: it failed on one of the workers; with the message of the first of them, on every worker.
    """
    result, error = None, ""
    try:
        result = call()
    except DrpoError as caught:
        error = str(caught)
    if error := next(filter(None, gather(error)), ""):
        raise DrpoError(error)
    return cast("T", result)


def broadcast_parameters(parameters: Sequence[Tensor]) -> None:
    """Copies the first worker's values to every worker."""
    if world_size() == 1:
        return
    with torch.no_grad():
        for parameter in parameters:
            dist.broadcast(parameter.data, src=0)
