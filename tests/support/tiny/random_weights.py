"""Seeded random weights of tiny checkpoints, scaled so that signals neither die nor explode on their way."""

from __future__ import annotations

import torch
from torch import Tensor


class Draw:
    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float | None = None) -> Tensor:
        return torch.randn(shape, generator=self.random) * (shape[-1] ** -0.5 if scale is None else scale)

    def linear(self, name: str, inside: int, out: int, bias: bool = True) -> dict[str, Tensor]:
        weights = {f"{name}.weight": self(out, inside)}
        return weights | {f"{name}.bias": self(out, scale=0.1)} if bias else weights

    def norm(self, name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + self(width, scale=0.1), f"{name}.bias": self(width, scale=0.1)}
