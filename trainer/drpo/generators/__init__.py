"""One-step generators: one file per layout of a model.

Files:
    base       the interface of a generator and of its adapter, and what an encoded prompt is
    adapter    the LoRA adapter on a U-Net
    sd_turbo   the SD-Turbo layout
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from drpo.config import LoraConfig
from drpo.generators.base import Adapter, Conditions, OneStepGenerator

if TYPE_CHECKING:
    import torch


def load_generator(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    lora: LoraConfig | None = None,
    gradient_checkpointing: bool = False,
) -> OneStepGenerator:
    """Loads a generator, with a fresh adapter if `lora` is given.

    Args:
        source: a diffusers folder or hub id. The SD-Turbo layout is the only one so far.
        device: where the generator computes.
        dtype: of the frozen base; None: float32.
        lora: settings of the adapter; None: no adapter.
        gradient_checkpointing: the backward pass needs less memory and more time.

    Raises:
        ModelLoadError: there is no such model.
        UnsupportedModelError: the model has another layout.
    """
    import torch

    from drpo.generators.sd_turbo import SDTurboGenerator

    return SDTurboGenerator.load(
        source,
        device=device,
        dtype=dtype or torch.float32,
        lora=lora,
        gradient_checkpointing=gradient_checkpointing,
    )


__all__ = ["Adapter", "Conditions", "OneStepGenerator", "load_generator"]
