"""A CLIP in the layout of transformers, as several rewards use it: pictures and prompts become unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from drpo_rewards.rewards.files.parts import BPE, CONFIG, WEIGHTS
from drpo_rewards.rewards.files.weights import load_pretrained, load_tokenizer
from drpo_rewards.rewards.shared.preprocess import Crop, clip_pixels, crop_squares, pinned
from drpo_rewards.rewards.shared.prompts import neutralize

FILES = (CONFIG, WEIGHTS, BPE)
MAX_TOKENS = 77


@dataclass(frozen=True)
class PreparedClip:
    """A batch for a CLIP. `pixels` are cut bytes, (N, S, S, 3), or normalised numbers, (N, 3, S, S)."""

    pixels: Tensor
    ids_PT: Tensor  # of the distinct prompts
    rows_N: Tensor  # each picture's prompt in it


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
    def load(cls, model: str | Path, crop: Crop, device: torch.device, dtype: torch.dtype) -> ClipEmbedder:
        """From a folder that holds FILES. Raises WeightsError."""
        return cls(load_pretrained(CLIPModel, model, dtype), clip_tokenizer(model), crop, device)

    @property
    def scale(self) -> float:
        """What CLIP multiplies a cosine with."""
        return float(self.model.logit_scale.detach().float().exp())

    def prepare(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> PreparedClip:
        """Pictures cut and prompts read, on the CPU."""
        return PreparedClip(self.crop_images(images), *self.read_prompts(prompts))

    def crop_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """(N, S, S, 3) uint8 of (H, W, 3) uint8 pictures of any sizes."""
        return pinned(crop_squares(images, self.side, self.crop), self.model.device)

    def read_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids of the distinct prompts, (P, T); and for each prompt its row there, (N,)."""
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        tokens = self.tokenizer(
            [neutralize(prompt, self.tokenizer) for prompt in distinct],
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        rows_N = torch.tensor([distinct[prompt] for prompt in prompts])
        return pinned(tokens["input_ids"], self.model.device), pinned(rows_N, self.model.device)

    @torch.inference_mode()
    def embed_pixels(self, pixels_N3SS: Tensor) -> Tensor:
        """(N, D) float32 unit vectors of pictures whose colours are normalised already."""
        pixels_N3SS = pixels_N3SS.to(self.model.device, self.model.dtype, non_blocking=True)
        return unit(self.model.get_image_features(pixel_values=pixels_N3SS).pooler_output)

    def embed_crops(self, bytes_NSS3: Tensor) -> Tensor:
        """(N, D) float32 unit vectors of what `crop_images` made."""
        return self.embed_pixels(clip_pixels(bytes_NSS3, self.model.device, self.model.dtype))

    @torch.inference_mode()
    def embed_tokens(self, ids_PT: Tensor, rows_N: Tensor) -> Tensor:
        """(N, D) float32 unit vectors of what `read_prompts` made."""
        ids_PT, rows_N = (tensor.to(self.model.device, non_blocking=True) for tensor in (ids_PT, rows_N))
        # `input_ids` alone: under the causal mask nothing before a text's end sees the padding behind it.
        return unit(self.model.get_text_features(input_ids=ids_PT).pooler_output)[rows_N]

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        return self.embed_crops(self.crop_images(images))

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        return self.embed_tokens(*self.read_prompts(prompts))

    def cosines(self, prepared: PreparedClip) -> Tensor:
        """(N,) float32: how well each picture and its own prompt agree."""
        return (self.embed_crops(prepared.pixels) * self.embed_tokens(prepared.ids_PT, prepared.rows_N)).sum(dim=-1)


def clip_tokenizer(model: str | Path) -> Any:
    """CLIP's tokenizer from a folder. Raises WeightsError."""
    return load_tokenizer(CLIPTokenizer, model, "tokenizer.json", "vocab.json")


def unit(vectors_ND: Tensor) -> Tensor:
    """Divided by their L2 norms, in float32."""
    return torch.nn.functional.normalize(vectors_ND.float(), dim=-1)
