"""Counts what torch's operations do: floating point operations, bytes, and the memory that they hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from drpo.training.meter import Meter

aten = torch.ops.aten


def count_flops() -> FlopCounterMode:
    """torch's counter, which also knows the attention of CPUs."""
    mapping = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


class OperationMeter(Meter):
    """Adds up the bytes that operations read and write, besides the tensors that are alive.

    A fused kernel reads and writes once what single operations would move several times, and caches keep some of it, so
    this is what the operations ask for, not what a counter of the hardware would show.

    Attributes:
        moved: bytes so far.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.moved = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and counts what it has read, written and made."""
        result = super().__torch_dispatch__(function, types, args, kwargs)
        if not function.is_view:
            tensors = [one for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor)]
            self.moved += sum(one.numel() * one.element_size() for one in tensors)
        return result


def _attention(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)
