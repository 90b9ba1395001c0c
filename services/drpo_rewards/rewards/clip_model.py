"""A CLIP in the layout of transformers, as several rewards use it: pictures and prompts become unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from drpo_rewards.rewards.preprocess import Crop, clip_pixels
from drpo_rewards.rewards.prompts import neutralize
from drpo_rewards.rewards.weights import load_pretrained, load_tokenizer

MAX_TOKENS = 77


class ClipEmbedder:
    """Embeds pictures and prompts with one CLIP. Vectors are normalised in float32, whatever the model computes in."""

    def __init__(self, model: CLIPModel, tokenizer: Any, crop: Crop, device: torch.device) -> None:
        self.model = model.eval().to(device)
        self.tokenizer = tokenizer
        # Public configurations say 2 here, which is no end of text but asks transformers for an older way to find it.
        self.model.text_model.eos_token_id = tokenizer.eos_token_id
        self.crop = crop
        config: Any = model.config
        self.side: int = config.vision_config.image_size
        self.max_tokens: int = min(MAX_TOKENS, config.text_config.max_position_embeddings)

    @classmethod
    def load(cls, model: str, crop: Crop, device: torch.device, dtype: torch.dtype) -> ClipEmbedder:
        """From a folder or a hub id: `config.json`, weights, and the tokenizer's files. Raises WeightsError."""
        return cls(load_pretrained(CLIPModel, model, dtype), clip_tokenizer(model), crop, device)

    @property
    def scale(self) -> float:
        """What CLIP multiplies a cosine with."""
        return float(self.model.logit_scale.detach().float().exp())

    @torch.inference_mode()
    def embed_pixels(self, pixels_N3SS: Tensor) -> Tensor:
        """(N, D) float32 unit vectors of pictures that are preprocessed already."""
        pixels_N3SS = pixels_N3SS.to(self.model.device, self.model.dtype)
        return unit(self.model.get_image_features(pixel_values=pixels_N3SS).pooler_output)

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """(N, D) float32 unit vectors of (H, W, 3) uint8 pictures of any sizes."""
        return self.embed_pixels(clip_pixels(images, self.side, self.crop, self.model.device, self.model.dtype))

    @torch.inference_mode()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """(N, D) float32 unit vectors; a prompt that comes several times is embedded once."""
        distinct = list(dict.fromkeys(prompts))
        tokens = self.tokenizer(
            [neutralize(prompt, self.tokenizer) for prompt in distinct],
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self.model.device)
        # `input_ids` alone: under the causal mask nothing before a text's end sees the padding behind it.
        vectors_PD = unit(self.model.get_text_features(input_ids=tokens["input_ids"]).pooler_output)
        return vectors_PD[[distinct.index(prompt) for prompt in prompts]]

    def cosines(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Tensor:
        """(N,) float32: how well each picture and its own prompt agree."""
        return (self.embed_images(images) * self.embed_prompts(prompts)).sum(dim=-1)


def clip_tokenizer(model: str) -> Any:
    """CLIP's tokenizer from a folder or a hub id. Raises WeightsError."""
    return load_tokenizer(CLIPTokenizer, model, "tokenizer.json", "vocab.json")


def unit(vectors_ND: Tensor) -> Tensor:
    """Divided by their L2 norms, in float32."""
    return torch.nn.functional.normalize(vectors_ND.float(), dim=-1)
