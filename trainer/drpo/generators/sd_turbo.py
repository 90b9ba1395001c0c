"""The SD-Turbo layout: a CLIP tokenizer and text encoder, whose last hidden states are all that the U-Net takes.

`SDTurboGenerator.load` takes a diffusers folder or hub id with the parts of `stabilityai/sd-turbo`, and computes what

    StableDiffusionPipeline(prompt, num_inference_steps=1, guidance_scale=0.0)

computes, see `drpo.generators.one_step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from drpo.config import LoraConfig
from drpo.generators.base import Conditions
from drpo.generators.one_step import OneStepPipeline
from drpo.generators.requirements import Requirements


class SDTurboGenerator(OneStepPipeline):
    """A pipeline in the SD-Turbo layout; see `OneStepPipeline`."""

    requirements = Requirements("SD-Turbo", StableDiffusionPipeline, ("text_encoder",))

    def __init__(self, pipeline: Any, lora: LoraConfig | None = None, *, whole: bool = False) -> None:
        super().__init__(pipeline, lora, whole=whole)
        self.tokenizer = pipeline.tokenizer
        self.text_encoder = pipeline.text_encoder.eval().requires_grad_(False)

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

    def _network_arguments(self, conditions: Conditions) -> dict[str, Any]:
        """Nothing but the text."""
        return {}
