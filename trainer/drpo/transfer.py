"""Copies between the CPU and a GPU that do not make one wait for the other.

A plain copy from or to ordinary memory waits until the GPU has done all that it was given before. Through pinned memory
it takes its turn among that work, and the program goes on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def move(tensor: Tensor, like: Tensor | torch.device) -> Tensor:
    """A tensor on a device, or with the device and the dtype of another tensor, without waiting for a GPU."""
    target: Any = like if isinstance(like, Tensor) else torch.device(like)
    device = target.device if isinstance(target, Tensor) else target
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(target, non_blocking=True)
    return tensor.to(target)


class Arriving:
    """An array that is on its way from a GPU. On a CPU it is there at once.

    Args:
        tensor: what is copied; it may be overwritten after this call.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event = None
        if tensor.device.type != "cuda":
            self._array = tensor.detach().cpu().numpy()
            return
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor.detach(), non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(tensor.device))
        self._array = pinned.numpy()

    @property
    def waits(self) -> bool:
        """Whether `wait` may take time."""
        return self._event is not None

    def wait(self) -> np.ndarray:
        """The array, once it is there. Any thread may call this."""
        if self._event is not None:
            self._event.synchronize()
        return self._array
