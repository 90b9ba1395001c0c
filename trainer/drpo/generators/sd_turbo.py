"""The one-step generator g_theta: a Stable Diffusion pipeline in the SD-Turbo layout, with a LoRA adapter on its U-Net.

`OneStepGenerator.load` takes a diffusers folder or hub id with the parts of `stabilityai/sd-turbo` (CLIP tokenizer and
text encoder, UNet2DConditionModel, AutoencoderKL, EulerDiscreteScheduler). Its `sample` and `decode` compute what

    StableDiffusionPipeline(prompt, num_inference_steps=1, guidance_scale=0.0)

computes, operation by operation, but differentiably and without a scheduler's state. The reference generator g_ref is
the same U-Net with its adapter switched off (`with generator.reference():`), not a second copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from diffusers.utils import logging as diffusers_logging
from diffusers.utils.torch_utils import randn_tensor
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from drpo.errors import ConfigError, ModelLoadError, ShapeError, UnsupportedModelError

ADAPTER = "default"


class LoraSettings(BaseModel):
    """The adapter: low-rank updates of the U-Net's attention projections."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(16, ge=1)
    alpha: float | None = Field(None, gt=0, description="the update is scaled by alpha / rank; null: alpha = rank")
    target_modules: tuple[str, ...] = Field(("to_q", "to_k", "to_v", "to_out.0"), min_length=1)


class OneStepGenerator:
    """Prompts and noises to latents and images in one call of the U-Net. Everything but the adapter is frozen.

    latent_shape: (C, h, w) of one latent. image_size: (height, width) in pixels. device, dtype: of the frozen base.
    The adapter's own weights stay in float32, whatever the base is in.
    """

    def __init__(self, pipeline: Any, lora: LoraSettings | None = None) -> None:
        self.tokenizer = pipeline.tokenizer
        self.text_encoder = pipeline.text_encoder.eval().requires_grad_(False)
        self.vae = pipeline.vae.eval().requires_grad_(False)
        # The U-Net too stays in evaluation mode: it has no dropout to train with, and checkpointing works without.
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
        self.has_adapter = False
        if lora is not None:
            self._add_adapter(lora)

    @classmethod
    def load(
        cls,
        folder_or_hub: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        lora: LoraSettings | None = None,
        gradient_checkpointing: bool = False,
        variant: str | None = None,
    ) -> OneStepGenerator:
        """Load a pipeline, and put a fresh adapter on it where `lora` is given.

        A fresh adapter is random in its first factor (torch's global generator) and 0 in its second, so it changes
        nothing yet. `variant` is that of diffusers' weight files, such as "fp16". `gradient_checkpointing` trades
        time for memory in the backward pass. Raises ModelLoadError if there is no such model, UnsupportedModelError if
        it is of another kind.
        """
        source = str(folder_or_hub)
        with _no_progress_bars():
            try:
                kind = DiffusionPipeline.load_config(source).get("_class_name")
                if kind != "StableDiffusionPipeline":
                    raise UnsupportedModelError(_unsupported(source, f"its pipeline is {kind}"))
                # Neither has a part in training; SD-Turbo comes without both.
                no_checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
                pipeline = StableDiffusionPipeline.from_pretrained(source, dtype=dtype, variant=variant, **no_checker)
            except (OSError, ValueError) as error:
                raise ModelLoadError(
                    f"cannot load a generator from {source!r}: {error}. Give a diffusers folder or hub id in the "
                    "layout of stabilityai/sd-turbo; a hub id needs access to the hub, or its files in the local cache."
                ) from error
        _check_one_step(source, pipeline)
        generator = cls(pipeline.to(device), lora)
        if gradient_checkpointing:
            generator.unet.enable_gradient_checkpointing()
        return generator

    # -- one step -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """The text encoder's last hidden states, (N, T, D); longer prompts are cut at the tokenizer's length."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        masked = getattr(self.text_encoder.config, "use_attention_mask", None)
        return self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask if masked else None)[0]

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (count, C, h, w), drawn on the generator's own device and moved to the model's.

        The pipeline draws the same from the same generator for `count` images of one prompt.
        """
        return randn_tensor((count, *self.latent_shape), generator=generator, device=self.device, dtype=self.dtype)

    def sample(self, noise_NChw: Tensor, text_NTD: Tensor) -> Tensor:
        """Clean latents (N, C, h, w) of standard normal noises under N encoded prompts, or under one for all of them.

        Differentiable with respect to the adapter. One Euler step from the first sigma to 0, in the pipeline's order of
        operations: scale, predict the noise, take the step in float32.
        """
        if noise_NChw.shape[1:] != self.latent_shape or text_NTD.shape[0] not in (1, noise_NChw.shape[0]):
            raise ShapeError(
                f"sample: wants noise (N, {', '.join(map(str, self.latent_shape))}) and text of N prompts or one, was "
                f"given {tuple(noise_NChw.shape)} and {tuple(text_NTD.shape)}"
            )
        start_NChw = noise_NChw.to(self.dtype) * self._initial_sigma
        model_input_NChw = start_NChw / ((self._sigma**2 + 1) ** 0.5)
        text_NTD = text_NTD.to(self.dtype).expand(noise_NChw.shape[0], -1, -1).contiguous()  # as the pipeline has it
        epsilon_NChw = self.unet(model_input_NChw, self._timestep, encoder_hidden_states=text_NTD, return_dict=False)[0]
        start_NChw = start_NChw.float()
        clean_NChw = start_NChw - self._sigma * epsilon_NChw
        derivative_NChw = (start_NChw - clean_NChw) / self._sigma
        return (start_NChw + derivative_NChw * (self._last_sigma - self._sigma)).to(epsilon_NChw.dtype)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within this block the adapter is off: `sample` is the frozen base, bit for bit."""
        if not self.has_adapter:
            yield
            return
        self.unet.disable_adapters()
        try:
            yield
        finally:
            self.unet.enable_adapters()

    # -- images -------------------------------------------------------------------------------------------------

    def decode_float(self, latents_NChw: Tensor) -> Tensor:
        """Images (N, 3, H, W), about [-1, 1] and not clamped; differentiable."""
        scaled_NChw = latents_NChw.to(self.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(scaled_NChw, return_dict=False)[0]

    @torch.no_grad()
    def decode(self, latents_NChw: Tensor, *, chunk_size: int = 8) -> np.ndarray:
        """Images (N, H, W, 3) uint8, rounded as the pipeline rounds; `chunk_size` of them are decoded at a time."""
        return np.concatenate([self.to_uint8(self.decode_float(latents)) for latents in latents_NChw.split(chunk_size)])

    @staticmethod
    def to_uint8(images_NCHW: Tensor) -> np.ndarray:
        """Images of `decode_float` as (N, H, W, 3) uint8, rounded as the pipeline rounds."""
        images_NHWC = (images_NCHW.detach() * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return (images_NHWC.float().cpu().numpy() * 255).round().astype("uint8")

    # -- adapter ------------------------------------------------------------------------------------------------

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The adapter's parameters in a fixed order; an empty list without an adapter."""
        return [parameter for name, parameter in self.unet.named_parameters() if ".lora_" in name]

    def adapter_state(self) -> dict[str, Tensor]:
        """A copy of the adapter's weights on the CPU, by name."""
        self._require_adapter()
        state = get_peft_model_state_dict(self.unet, adapter_name=ADAPTER)
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Copy weights of `adapter_state` into the adapter in place, so that an optimizer of it stays valid."""
        expected = {name: tensor.shape for name, tensor in self.adapter_state().items()}
        if {name: tensor.shape for name, tensor in state.items()} != expected:
            raise ModelLoadError(
                f"the adapter's weights do not fit this generator's adapter (rank {self._lora_config().r} on "
                f"{sorted(self._lora_config().target_modules)}): other modules or another rank"
            )
        set_peft_model_state_dict(self.unet, state, adapter_name=ADAPTER)

    def save_adapter(self, folder: str | Path) -> None:
        """Write `pytorch_lora_weights.safetensors` as diffusers does; `pipeline.load_lora_weights(folder)` reads it."""
        layers = convert_state_dict_to_diffusers(self.adapter_state())
        metadata = self._lora_config().to_dict()
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)

    def load_adapter(self, folder: str | Path) -> None:
        """Read an adapter that `save_adapter` (or diffusers) wrote: into the present one, or as a new one."""
        try:
            state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
                str(folder), unet_config=self.unet.config, return_lora_metadata=True
            )
        except (OSError, ValueError) as error:
            raise ModelLoadError(
                f"cannot load an adapter from {folder}: {error}. It must hold pytorch_lora_weights.safetensors"
            ) from error
        if not self.has_adapter:
            self.unet.load_lora_adapter(
                state, prefix="unet", network_alphas=alphas, adapter_name=ADAPTER, metadata=metadata or None
            )
            self._prepare_adapter()
            return
        layers = {name.removeprefix("unet."): tensor for name, tensor in state.items() if name.startswith("unet.")}
        alpha = (metadata or {}).get("unet.lora_alpha", self._lora_config().lora_alpha)
        if alpha != self._lora_config().lora_alpha:
            raise ModelLoadError(
                f"the adapter in {folder} has alpha {alpha}, this generator's has {self._lora_config().lora_alpha}"
            )
        self.load_adapter_state(convert_unet_state_dict_to_peft(layers))

    def _add_adapter(self, lora: LoraSettings) -> None:
        alpha: Any = lora.rank if lora.alpha is None else lora.alpha  # peft types it int, and takes any number
        config = LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=list(lora.target_modules))
        try:
            self.unet.add_adapter(config, adapter_name=ADAPTER)
        except ValueError as error:
            raise ConfigError(
                f"lora.target_modules {list(lora.target_modules)} do not fit the U-Net: {error}"
            ) from error
        self._prepare_adapter()

    def _prepare_adapter(self) -> None:
        self.has_adapter = True
        for parameter in self.trainable_parameters():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)

    def _lora_config(self) -> Any:
        return self.unet.peft_config[ADAPTER]

    def _require_adapter(self) -> None:
        if not self.has_adapter:
            raise ConfigError(
                "this generator has no adapter: load it with lora=LoraSettings(), or load_adapter(folder)"
            )


def _check_one_step(source: str, pipeline: Any) -> None:
    """Refuse what the one step of `sample` would get wrong."""
    settings, unet = pipeline.scheduler.config, pipeline.unet
    if not isinstance(pipeline.scheduler, EulerDiscreteScheduler):
        raise UnsupportedModelError(_unsupported(source, f"its scheduler is {type(pipeline.scheduler).__name__}"))
    if settings.prediction_type != "epsilon" or settings.timestep_spacing != "trailing":
        found = f"{settings.prediction_type} prediction with {settings.timestep_spacing} spacing"
        raise UnsupportedModelError(_unsupported(source, f"its scheduler has {found}"))
    if unet.config.time_cond_proj_dim is not None or unet.config.addition_embed_type is not None:
        raise UnsupportedModelError(_unsupported(source, "its U-Net takes conditions besides the text"))


def _unsupported(source: str, found: str) -> str:
    return (
        f"{source!r} is not a one-step generator in the SD-Turbo layout: {found}. Supported is StableDiffusionPipeline "
        "with an EulerDiscreteScheduler, epsilon prediction and trailing spacing (SDXL-Turbo is not supported yet)"
    )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Both libraries draw a bar per load; the command line has one of its own."""
    loggings = [module for module in (diffusers_logging, transformers_logging) if module.is_progress_bar_enabled()]
    for module in loggings:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in loggings:
            module.enable_progress_bar()
