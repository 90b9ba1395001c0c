"""A tiny random AES in the public layout: the file of its head, next to a CLIP."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from support.tiny.clip import write_clip
from support.tiny.random_weights import Draw

HEAD = "sac+logos+ava1-l14-linearMSE.pth"
WIDTHS = (1024, 128, 64, 16, 1)


def write_aesthetic(folder: Path) -> Path:
    torch.save(head_tensors(), write_clip(folder) / HEAD)
    return folder


def head_tensors(indices: str = "02467", width: int = 24) -> dict[str, Tensor]:
    draw = Draw(3)
    tensors: dict[str, Tensor] = {}
    for index, inputs, outputs in zip(indices, (width, *WIDTHS[:-1]), WIDTHS, strict=True):
        tensors |= draw.linear(f"layers.{index}", inputs, outputs)
    return tensors
