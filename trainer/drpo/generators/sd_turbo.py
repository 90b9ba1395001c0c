"""The one-step generator g_theta: a Stable Diffusion pipeline in the SD-Turbo layout, with a LoRA adapter on its U-Net.

`SDTurboGenerator.load` takes a diffusers folder or hub id with the parts of `stabilityai/sd-turbo` (CLIP tokenizer and
text encoder, UNet2DConditionModel, AutoencoderKL, EulerDiscreteScheduler). Its `sample` and `decode` compute what

    StableDiffusionPipeline(prompt, num_inference_steps=1, guidance_scale=0.0)

computes, operation by operation, but differentiably and without a scheduler's state. The reference generator g_ref is
the same U-Net with its adapter switched off (`with generator.reference():`), not a second copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from drpo.config import LoraConfig
from drpo.errors import ShapeError, UnsupportedModelError
from drpo.generators.adapter import LoraAdapter
from drpo.generators.base import Conditions
from drpo.generators.loading import load_pipeline, no_progress_bars, read_pipeline_class


class SDTurboGenerator:
    """Maps prompts and noises to latents and images in one call of the U-Net. Everything but the adapter is frozen.

    Args:
        pipeline: a loaded diffusers pipeline; `load` makes one from a folder.
        lora: settings of a fresh adapter; None: no adapter.

    Attributes:
        adapter: the LoRA adapter of the U-Net.
        latent_shape: (C, h, w) of one latent, for example (4, 64, 64).
        image_size: (height, width) in pixels, for example (512, 512).
        device, dtype: of the frozen base; the adapter's own weights are always float32.
    """

    def __init__(self, pipeline: Any, lora: LoraConfig | None = None) -> None:
        self.tokenizer = pipeline.tokenizer
        self.text_encoder = pipeline.text_encoder.eval().requires_grad_(False)
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

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        lora: LoraConfig | None = None,
        gradient_checkpointing: bool = False,
        variant: str | None = None,
    ) -> SDTurboGenerator:
        """Loads a pipeline, and adds a fresh adapter if `lora` is given.

        Args:
            source: a diffusers folder or hub id.
            device: where the generator computes.
            dtype: of the frozen base.
            lora: settings of the adapter; None: no adapter.
            gradient_checkpointing: the backward pass needs less memory and more time.
            variant: which files to take, see `drpo.generators.loading.load_pipeline`.

        Raises:
            ModelLoadError: there is no such model, or some of its files are missing or damaged.
            UnsupportedModelError: the model has another layout.
        """
        source = str(source)
        with no_progress_bars():
            pipeline_class = read_pipeline_class(source)
            if pipeline_class != "StableDiffusionPipeline":
                raise _unsupported_model(source, f"its pipeline is {pipeline_class}")
            pipeline = load_pipeline(source, StableDiffusionPipeline, dtype=dtype, variant=variant)
        _check_one_step(source, pipeline)
        generator = cls(pipeline.to(device), lora)
        if gradient_checkpointing:
            generator.unet.enable_gradient_checkpointing()
        return generator

    # -- one step -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """The text encoder's last hidden states. Prompts of more than T tokens are cut."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        masked = getattr(self.text_encoder.config, "use_attention_mask", None)
        mask = tokens.attention_mask if masked else None
        return Conditions(self.text_encoder(tokens.input_ids, attention_mask=mask)[0])

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
        text_NTD = conditions.expand(len(noise_NChw)).text_NTD.to(self.dtype).contiguous()  # as in the pipeline
        epsilon_NChw = self.unet(model_input_NChw, self._timestep, encoder_hidden_states=text_NTD, return_dict=False)[0]
        start_NChw = start_NChw.float()
        clean_NChw = start_NChw - self._sigma * epsilon_NChw
        derivative_NChw = (start_NChw - clean_NChw) / self._sigma
        return (start_NChw + derivative_NChw * (self._last_sigma - self._sigma)).to(epsilon_NChw.dtype)

    def reference(self) -> AbstractContextManager[None]:
        """Within this block the adapter is off, so that `sample` computes the frozen base, bit for bit."""
        return self.adapter.switched_off()

    # -- images -------------------------------------------------------------------------------------------------

    def decode_float(self, latents_NChw: Tensor) -> Tensor:
        """Images (N, 3, H, W), roughly in [-1, 1] and not clamped; differentiable."""
        scaled_NChw = latents_NChw.to(self.dtype) / self.vae.config.scaling_factor
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


def _check_one_step(source: str, pipeline: Any) -> None:
    """Refuses models for which the one step of `sample` would be wrong."""
    settings, unet = pipeline.scheduler.config, pipeline.unet
    if not isinstance(pipeline.scheduler, EulerDiscreteScheduler):
        raise _unsupported_model(source, f"its scheduler is {type(pipeline.scheduler).__name__}")
    if settings.prediction_type != "epsilon" or settings.timestep_spacing != "trailing":
        scheduler = f"{settings.prediction_type} prediction with {settings.timestep_spacing} spacing"
        raise _unsupported_model(source, f"its scheduler has {scheduler}")
    if unet.config.time_cond_proj_dim is not None or unet.config.addition_embed_type is not None:
        raise _unsupported_model(source, "its U-Net takes more conditions than the text")


def _unsupported_model(source: str, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{source!r} is not a one-step generator in the SD-Turbo layout: {reason}. Use a StableDiffusionPipeline with "
        "an EulerDiscreteScheduler, epsilon prediction and trailing spacing (SDXL-Turbo is not supported yet)"
    )
