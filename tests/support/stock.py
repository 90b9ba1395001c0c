"""A model of one layout in stock diffusers and in this project, and the same pictures of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drpo.generators import OneStepGenerator, load_generator

PROMPT = "a red ring"


@dataclass(frozen=True)
class World:
    """A model of one layout, and its stock pipeline.

    Attributes:
        folder: the model.
        stock_class: its class in diffusers.
    """

    folder: Path
    stock_class: Any

    def load(self, **arguments: Any) -> OneStepGenerator:
        """The generator of this project."""
        return load_generator(self.folder, **arguments)

    def stock(self, adapter: Path | None = None, dtype: torch.dtype = torch.float32, **parts: Any) -> Any:
        """The stock pipeline, with a LoRA adapter if one is given."""
        pipeline = self.stock_class.from_pretrained(self.folder, dtype=dtype, **parts)
        pipeline.set_progress_bar_config(disable=True)
        if adapter is not None:
            pipeline.load_lora_weights(adapter)
        # On a CPU, torch picks other kernels for weights that could be trained; they differ in the last bit.
        for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
            if hasattr(pipeline, name):
                getattr(pipeline, name).requires_grad_(False)
        return pipeline


def stock_images(pipeline: Any, count: int = 3, seed: int = 7, output_type: str = "np") -> Any:
    """What a stock pipeline draws in one step at the size of its U-Net."""
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    images = pipeline(
        PROMPT,
        height=size,
        width=size,
        num_inference_steps=1,
        guidance_scale=0.0,
        num_images_per_prompt=count,
        generator=torch.Generator().manual_seed(seed),
        output_type=output_type,
    ).images
    return np.stack([np.asarray(image) for image in images]) if output_type == "pil" else images


def our_latents(generator: OneStepGenerator, count: int = 3, seed: int = 7) -> Tensor:
    """The latents of the same pictures as those of `stock_images`."""
    noise_NChw = generator.noise(count, torch.Generator().manual_seed(seed))
    return generator.sample(noise_NChw, generator.encode_prompts([PROMPT]))
