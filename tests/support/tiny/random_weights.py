"""Seeded random weights, scaled so that activations neither vanish nor explode."""

from __future__ import annotations

import torch
from torch import Tensor


class Draw:
    """Draws normally distributed tensors, by default scaled by 1 / sqrt(last dimension)."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float | None = None) -> Tensor:
        return torch.randn(shape, generator=self.random) * (shape[-1] ** -0.5 if scale is None else scale)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> dict[str, Tensor]:
        weights = {f"{name}.weight": self(outputs, inputs)}
        return weights | {f"{name}.bias": self(outputs, scale=0.1)} if bias else weights

    def norm(self, name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + self(width, scale=0.1), f"{name}.bias": self(width, scale=0.1)}
