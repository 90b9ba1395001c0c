"""The SDXL-Turbo layout: two CLIP tokenizers and text encoders, a pooled vector, and the picture's size as "time ids".

`SDXLTurboGenerator.load` takes a diffusers folder or hub id with the parts of `stabilityai/sdxl-turbo`, and computes
what

    StableDiffusionXLPipeline(prompt, num_inference_steps=1, guidance_scale=0.0)

computes, see `drpo.generators.one_step`, at the size of the U-Net (512 x 512 for SDXL-Turbo). The scheduler's ancestral
step to sigma 0 adds noise times 0, so none is drawn here, and the global random state does not move.

In float16 the VAE of SDXL overflows. Where its config says `force_upcast`, it is kept in float32, as in the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from drpo.config import LoraConfig
from drpo.generators.base import Conditions
from drpo.generators.one_step import OneStepPipeline
from drpo.generators.requirements import Requirements
from drpo.transfer import move


class SDXLTurboGenerator(OneStepPipeline):
    """A pipeline in the SDXL-Turbo layout; see `OneStepPipeline`."""

    requirements = Requirements(
        "SDXL-Turbo", StableDiffusionXLPipeline, text_encoders=("text_encoder", "text_encoder_2")
    )

    def __init__(self, pipeline: Any, lora: LoraConfig | None = None, *, whole: bool = False) -> None:
        super().__init__(pipeline, lora, whole=whole)
        self.tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2)
        self.text_encoders = tuple(
            encoder.eval().requires_grad_(False) for encoder in (pipeline.text_encoder, pipeline.text_encoder_2)
        )
        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.float()

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """The last hidden states but one of both text encoders side by side, and the second one's projected vector."""
        states, pooled_ND = [], None
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            tokens = tokenizer(
                list(prompts),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).to(self.device)
            output = encoder(tokens.input_ids, output_hidden_states=True)
            states.append(output.hidden_states[-2])
            pooled_ND = output[0]  # of the second encoder: its projected vector
        return Conditions(torch.cat(states, dim=-1).to(states[-1].dtype), pooled_ND)

    def _network_arguments(self, conditions: Conditions) -> dict[str, Any]:
        """The pooled vectors, and the "time ids": original size, crop and target size, all of the image's own size."""
        assert conditions.pooled_ND is not None  # `encode_prompts` always gives it
        size = [*self.image_size, 0, 0, *self.image_size]
        time_ids_N6 = move(torch.tensor([size], dtype=conditions.text_NTD.dtype), self.device)
        return {
            "added_cond_kwargs": {
                "text_embeds": conditions.pooled_ND.to(self.dtype).contiguous(),
                "time_ids": time_ids_N6.repeat(len(conditions), 1),
            }
        }

    def decode_float(self, latents_NChw: Tensor) -> Tensor:
        """Images (N, 3, H, W), roughly in [-1, 1] and not clamped; differentiable."""
        config = self.vae.config
        if config.latents_mean is None or config.latents_std is None:
            return super().decode_float(latents_NChw)
        latents_NChw = latents_NChw.to(self.vae.dtype)
        mean_1C11 = move(torch.tensor(config.latents_mean).view(1, -1, 1, 1), latents_NChw)
        std_1C11 = move(torch.tensor(config.latents_std).view(1, -1, 1, 1), latents_NChw)
        scaled_NChw = latents_NChw * std_1C11 / config.scaling_factor + mean_1C11
        return self.vae.decode(scaled_NChw, return_dict=False)[0]
