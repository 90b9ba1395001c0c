"""The one-step generator g_theta, as far as its layouts agree: one Euler step of a diffusers pipeline, and its VAE.

The computation is that of the stock pipeline called with `num_inference_steps=1, guidance_scale=0.0`, operation by
operation, but differentiable and without a scheduler's state. The reference generator g_ref is the same generator
within `with generator.reference():`.

What is trained is `generator.adapter`: a LoRA adapter on the U-Net, or the whole U-Net (`drpo.generators.whole`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from drpo.config import LoraConfig
from drpo.errors import ShapeError
from drpo.generators.adapter import LoraAdapter
from drpo.generators.base import Conditions, Layout
from drpo.generators.loading import check_source, load_pipeline, no_progress_bars
from drpo.generators.requirements import Requirements
from drpo.generators.unet_file import find_unet, read_unet_weights, replace_weights
from drpo.generators.whole import WholeUNet
from drpo.transfer import move


class OneStepPipeline(ABC):
    """Maps prompts and noises to latents and images in one call of the U-Net. Everything but the adapter is frozen.

    A layout adds how prompts are encoded, and what the U-Net takes besides the text.

    Args:
        pipeline: a loaded diffusers pipeline whose scheduler takes one step from the first sigma to 0.
        lora: settings of a fresh LoRA adapter.
        whole: train the U-Net itself. With neither `lora` nor `whole` there is no adapter until one is loaded.

    Attributes:
        requirements: what a model must have to be of this layout.
        adapter: the trainable weights.
        unet: the frozen U-Net, with the layers of a LoRA adapter if it is one.
        latent_shape: (C, h, w) of one latent, for example (4, 64, 64).
        image_size: (height, width) in pixels, for example (512, 512).
        decode_chunk: images decoded at once, where no gradient is needed.
        device, dtype: of everything that is frozen; trained weights are always float32.
    """

    requirements: ClassVar[Requirements]

    def __init__(self, pipeline: Any, lora: LoraConfig | None = None, *, whole: bool = False) -> None:
        self.vae = pipeline.vae.eval().requires_grad_(False)
        # The U-Net stays in evaluation mode too: it has no dropout, and gradient checkpointing works in that mode.
        self.unet = pipeline.unet.eval().requires_grad_(False)
        self.dtype, self.device = self.unet.dtype, self.unet.device
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.latent_shape = (self.unet.config.in_channels, height, width)
        self.decode_chunk = 8
        self.image_size = (height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor)

        scheduler = pipeline.scheduler
        scheduler.set_timesteps(1)
        self._timestep = scheduler.timesteps[0].to(self.device)
        self._sigma, self._last_sigma = scheduler.sigmas  # on the CPU, as zero-dimensional tensors: 14.61 and 0
        self._initial_sigma = scheduler.init_noise_sigma
        self.adapter: LoraAdapter | WholeUNet = (
            WholeUNet(self.unet) if whole else LoraAdapter(self.unet, lora, self.requirements.pipeline_class)
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        lora: LoraConfig | None = None,
        whole: bool = False,
        gradient_checkpointing: bool = False,
        variant: str | None = None,
        vae: str | None = None,
        unet: str | None = None,
    ) -> Self:
        """Loads a pipeline, and adds a fresh adapter if `lora` or `whole` asks for one.

        Args:
            source: a diffusers folder or hub id.
            device: where the generator computes.
            dtype: of everything that is frozen.
            lora: settings of a LoRA adapter.
            whole: train the U-Net itself.
            gradient_checkpointing: the backward pass needs less memory and more time.
            variant: which files to take, see `drpo.generators.loading.load_pipeline`.
            vae: a folder or hub id of another VAE than the pipeline's.
            unet: another U-Net than the pipeline's, see `drpo.generators.unet_file`.

        Raises:
            ModelLoadError: there is no such model, or some of its files are missing or damaged.
            UnsupportedModelError: the model has another layout.
        """
        source = str(source)
        with no_progress_bars():
            cls.requirements.check_class(source)
            check_source(source, variant, without=() if vae is None else ("vae",))
            cls.requirements.check(source, vae)
            pipeline = load_pipeline(source, cls.requirements.pipeline_class, dtype=dtype, variant=variant, vae=vae)
        if unet is not None:
            replace_weights(pipeline.unet, Path(unet))
        if gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
        return cls(pipeline.to(device), lora, whole=whole)

    def load_adapter(self, path: str | Path) -> None:
        """Replaces the adapter by that in a file or folder: a LoRA adapter or a whole U-Net of any origin.

        Raises:
            ModelLoadError, UnsupportedModelError: see `drpo.generators.adapter_file` and `drpo.generators.unet_file`.
                Nothing has changed.
        """
        adapter: LoraAdapter | WholeUNet
        if find_unet(Path(path)) is None:
            adapter = self.adapter
            if not isinstance(adapter, LoraAdapter):
                adapter = LoraAdapter(self.unet, None, self.requirements.pipeline_class)
            adapter.load(path)
        else:
            state = read_unet_weights(Path(path), self.unet)
            adapter = self.adapter
            if isinstance(adapter, LoraAdapter):
                adapter.remove()
                adapter = WholeUNet(self.unet, trainable=False)
            adapter.load_state(state)
        self.adapter = adapter

    @property
    def layout(self) -> Layout:
        """What a feature map must fit."""
        return Layout.of(self.unet.config, self.vae.config)

    @property
    def networks(self) -> list[nn.Module]:
        """The U-Net, the trained copy of it if there is one, and the decoder."""
        trained = [self.adapter.network] if isinstance(self.adapter, WholeUNet) else []
        return [self.unet, *trained, self.vae.decoder]

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
        device = self.device if generator is None else generator.device
        shape = (count, *self.latent_shape)
        return move(randn_tensor(shape, generator=generator, device=device, dtype=self.dtype), self.device)

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
        epsilon_NChw = self.predict_noise(model_input_NChw, self._timestep, conditions)
        start_NChw = start_NChw.float()
        clean_NChw = start_NChw - self._sigma * epsilon_NChw
        derivative_NChw = (start_NChw - clean_NChw) / self._sigma
        return (start_NChw + derivative_NChw * (self._last_sigma - self._sigma)).to(epsilon_NChw.dtype)

    def predict_noise(self, latents_NChw: Tensor, timestep: Tensor | int, conditions: Conditions) -> Tensor:
        """The U-Net's prediction (N, C, h, w) for scaled latents, for N encoded prompts or one for all."""
        conditions = conditions.expand(len(latents_NChw))
        return self.adapter.predict(
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

    def decode(self, latents_NChw: Tensor) -> np.ndarray:
        """Images (N, H, W, 3) uint8, rounded as in the pipeline."""
        return self.decode_uint8(latents_NChw).cpu().numpy()

    @torch.no_grad()
    def decode_uint8(self, latents_NChw: Tensor) -> Tensor:
        """The images of `decode` on the generator's device; decoded `decode_chunk` at a time."""
        chunks = latents_NChw.split(self.decode_chunk)
        return torch.cat([self.to_uint8(self.decode_float(chunk)) for chunk in chunks])

    @staticmethod
    def to_uint8(images_N3HW: Tensor) -> Tensor:
        """The images of `decode_float` as (N, H, W, 3) uint8 on their device, rounded as in the pipeline."""
        images_NHWC = (images_N3HW.detach() * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return (images_NHWC.float() * 255).round().to(torch.uint8).contiguous()
