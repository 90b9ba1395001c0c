"""One-step generators: one file per layout of a model.

Files:
    base           the interface of a generator and of its adapter, and what an encoded prompt is
    adapter        the LoRA adapter on a U-Net
    adapter_file   reads the adapters of diffusers, peft and kohya
    loading        which files of a generator there are, which are missing, and which variant to take
    sd_turbo       the SD-Turbo layout
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
    variant: str | None = None,
) -> OneStepGenerator:
    """Loads a generator, with a fresh adapter if `lora` is given.

    Args:
        source: a diffusers folder or hub id. The SD-Turbo layout is the only one so far.
        device: where the generator computes.
        dtype: of the frozen base; None: float32.
        lora: settings of the adapter; None: no adapter.
        gradient_checkpointing: the backward pass needs less memory and more time.
        variant: which files to take, such as "fp16"; None: the plain files, or the only variant that is there.

    Raises:
        ModelLoadError: there is no such model, or some of its files are missing or damaged.
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
        variant=variant,
    )


def check_adapter(path: str | Path, source: str | Path) -> None:
    """Checks that an adapter fits a generator, without loading the generator's weights.

    Args:
        path: the adapter's file or folder.
        source: the generator's diffusers folder or hub id.

    Raises:
        ModelLoadError, UnsupportedModelError: see `drpo.generators.adapter_file.read_adapter`.
    """
    from drpo.generators.adapter_file import read_adapter
    from drpo.generators.loading import read_unet

    read_adapter(Path(path), read_unet(str(source)))


__all__ = ["Adapter", "Conditions", "OneStepGenerator", "check_adapter", "load_generator"]
