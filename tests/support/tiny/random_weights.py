"""Random weights, scaled so that activations neither vanish nor explode, and files of them.

On the device `meta` a tensor has only a name, a shape and a dtype. `save_tensors` writes such tensors as a file with a
hole in place of the numbers, so a checkpoint of any size takes no time and no disk space. It reads as zeros.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}  # in safetensors


class Draw:
    """Draws normally distributed tensors, by default scaled by 1 / sqrt(last dimension)."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.device = device
        self.random = None if device == "meta" else torch.Generator(device).manual_seed(seed)

    def __call__(self, *shape: int, scale: float | None = None) -> Tensor:
        numbers = torch.randn(shape, generator=self.random, device=self.device)
        return numbers * (shape[-1] ** -0.5 if scale is None else scale)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> dict[str, Tensor]:
        weights = {f"{name}.weight": self(outputs, inputs)}
        return weights | {f"{name}.bias": self(outputs, scale=0.1)} if bias else weights

    def norm(self, name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + self(width, scale=0.1), f"{name}.bias": self(width, scale=0.1)}


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU; those on `meta` stay there."""
    return {name: tensor if tensor.is_meta else tensor.cpu() for name, tensor in tensors.items()}


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file; with a hole in place of all numbers if a tensor is on `meta`."""
    if any(tensor.is_meta for tensor in tensors.values()):
        _save_hole(tensors, path)
    else:
        contiguous = {name: tensor.contiguous() for name, tensor in on_cpu(tensors).items()}
        save_file(contiguous, path, metadata={"format": "pt"})


def _save_hole(tensors: Mapping[str, Tensor], path: Path) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
