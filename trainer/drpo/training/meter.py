"""What a computation keeps alive at its peak, also where tensors have shapes but no numbers (torch's meta device)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class Meter(TorchDispatchMode):
    """Adds up the tensors that are made within the block and alive at the same time.

    Args:
        device: where they are.

    Attributes:
        peak: the most bytes so far.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.peak = 0
        self._device = device
        self._alive = 0
        self._known = WeakIdKeyDictionary()

    def reset_peak(self) -> None:
        """Starts a new peak, at what is alive now."""
        self.peak = self._alive

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and counts what it has made."""
        inputs = tree_leaves((args, kwargs))
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                self._known.setdefault(tensor.untyped_storage(), None)  # made before the block, or counted
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == self._device.type:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = None
        size = storage.nbytes()
        self._alive += size
        self.peak = max(self.peak, self._alive)
        finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self._alive -= size


class _FusedAttention(torch.autograd.Function):
    """What a fused kernel keeps for its backward pass: inputs, output, and a number for each query. No matrix."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        context.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        query, key, value, *_ = context.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Within this block attention takes the memory of the kernels that devices have, not of the plain formula."""

    def attend(query: Tensor, key: Tensor, value: Tensor, *options: Any, **more: Any) -> Tensor:
        return _FusedAttention.apply(query, key, value)

    plain = nn.functional.scaled_dot_product_attention
    nn.functional.scaled_dot_product_attention = attend  # type: ignore[assignment]
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = plain
