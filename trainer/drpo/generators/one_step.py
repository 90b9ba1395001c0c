"""What the layouts share: one Euler step of a diffusers pipeline, its VAE, and the adapter of its U-Net.

The computation is that of the stock pipeline called with `num_inference_steps=1, guidance_scale=0.0`, operation by
operation, but differentiable and without a scheduler's state. The reference generator g_ref is the same U-Net with its
adapter switched off (`with generator.reference():`), not a second copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from drpo.config import LoraConfig
from drpo.errors import ShapeError
from drpo.generators.adapter import LoraAdapter
from drpo.generators.base import Conditions


class OneStepPipeline(ABC):
    """Maps prompts and noises to latents and images in one call of the U-Net. Everything but the adapter is frozen.

    A layout adds how prompts are encoded, and what the U-Net takes besides the text.

    Args:
        pipeline: a loaded diffusers pipeline whose scheduler takes one step from the first sigma to 0.
        lora: settings of a fresh adapter; None: no adapter.

    Attributes:
        adapter: the LoRA adapter of the U-Net.
        latent_shape: (C, h, w) of one latent, for example (4, 64, 64).
        image_size: (height, width) in pixels, for example (512, 512).
        device, dtype: of the frozen base; the adapter's own weights are always float32.
    """

    def __init__(self, pipeline: Any, lora: LoraConfig | None = None) -> None:
        self.vae = pipeline.vae.eval().requires_grad_(False)
        # The U-Net stays in evaluation mode too: it has no dropout, and gradient checkpointing works in that mode.
        self.unet = pipeline.unet.eval().requires_grad_(False)
        self.dtype, self.device = self.unet.dtype, self.unet.device
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.latent_shape = (self.unet.config.in_channels, height, width)
        self.image_size = (height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor)

        scheduler = pipeline.scheduler
        scheduler.set_timesteps(1, device=self.device)
        self._timestep = scheduler.timesteps[0]
        self._sigma, self._last_sigma = scheduler.sigmas  # on the CPU, as zero-dimensional tensors: 14.61 and 0
        self._initial_sigma = scheduler.init_noise_sigma
        self.adapter = LoraAdapter(self.unet, lora)

    # -- one step -----------------------------------------------------------------------------------------------

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """The encoded prompts. Prompts of more tokens than the text encoder takes are cut."""

    @abstractmethod
    def _network_arguments(self, conditions: Conditions) -> dict[str, Any]:
        """What the U-Net takes besides latents, timestep and text, for N images."""

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (count, C, h, w), drawn on the device of `generator` and moved to the model's device.

        The stock pipeline draws the same noise from the same generator for `count` images of one prompt.
        """
        return randn_tensor((count, *self.latent_shape), generator=generator, device=self.device, dtype=self.dtype)

    def sample(self, noise_NChw: Tensor, conditions: Conditions) -> Tensor:
        """Clean latents (N, C, h, w) from standard normal noises, for N encoded prompts or one for all.

        This is one Euler step from the first sigma to 0, with the operations in the pipeline's order: scale, predict
        the noise, take the step in float32. It is differentiable with respect to the adapter.

        Raises:
            ShapeError: the noise has another shape, or the number of prompts is neither N nor 1.
        """
        if noise_NChw.shape[1:] != self.latent_shape or len(conditions) not in (1, noise_NChw.shape[0]):
            raise ShapeError(
                f"sample needs noise (N, {', '.join(map(str, self.latent_shape))}) and N encoded prompts or one, "
                f"not {tuple(noise_NChw.shape)} and {len(conditions)}"
            )
        start_NChw = noise_NChw.to(self.dtype) * self._initial_sigma
        model_input_NChw = start_NChw / ((self._sigma**2 + 1) ** 0.5)
        epsilon_NChw = self._predict_noise(model_input_NChw, self._timestep, conditions)
        start_NChw = start_NChw.float()
        clean_NChw = start_NChw - self._sigma * epsilon_NChw
        derivative_NChw = (start_NChw - clean_NChw) / self._sigma
        return (start_NChw + derivative_NChw * (self._last_sigma - self._sigma)).to(epsilon_NChw.dtype)

    def _predict_noise(self, latents_NChw: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        conditions = conditions.expand(len(latents_NChw))
        return self.unet(
            latents_NChw,
            timestep,
            encoder_hidden_states=conditions.text_NTD.to(self.dtype).contiguous(),  # as in the pipeline
            return_dict=False,
            **self._network_arguments(conditions),
        )[0]

    def reference(self) -> AbstractContextManager[None]:
        """Within this block the adapter is off, so that `sample` computes the frozen base, bit for bit."""
        return self.adapter.switched_off()

    # -- images -------------------------------------------------------------------------------------------------

    def decode_float(self, latents_NChw: Tensor) -> Tensor:
        """Images (N, 3, H, W), roughly in [-1, 1] and not clamped; differentiable."""
        scaled_NChw = latents_NChw.to(self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(scaled_NChw, return_dict=False)[0]

    @torch.no_grad()
    def decode(self, latents_NChw: Tensor, *, chunk_size: int = 8) -> np.ndarray:
        """Images (N, H, W, 3) uint8, rounded as in the pipeline; decoded in chunks of `chunk_size`."""
        return np.concatenate([self.to_uint8(self.decode_float(chunk)) for chunk in latents_NChw.split(chunk_size)])

    @staticmethod
    def to_uint8(images_N3HW: Tensor) -> np.ndarray:
        """The images of `decode_float` as (N, H, W, 3) uint8, rounded as in the pipeline."""
        images_NHWC = (images_N3HW.detach() * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return (images_NHWC.float().cpu().numpy() * 255).round().astype("uint8")
