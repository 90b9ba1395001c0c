"""A CLIP of transformers, which turns pictures and prompts into unit vectors for several rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from drpo_rewards.rewards.files.model_files import BPE, CONFIG, WEIGHTS
from drpo_rewards.rewards.files.weights import load_pretrained, load_tokenizer
from drpo_rewards.rewards.shared.preprocess import (
    Crop,
    break_special_tokens,
    clip_pixels,
    crop_pixels,
    crop_squares,
    normalize,
    pinned,
)

FILES = (CONFIG, WEIGHTS, BPE)
MAX_TOKENS = 77


@dataclass(frozen=True)
class PreparedClip:
    """A batch of N pictures and their prompts, for a CLIP.

    Attributes:
        pixels: cropped pictures, (N, S, S, 3) uint8, or normalised ones, (N, 3, S, S) float32.
        ids_PT: token ids of the P distinct prompts.
        rows_N: for each picture the row of its prompt in `ids_PT`.
    """

    pixels: Tensor
    ids_PT: Tensor
    rows_N: Tensor


class ClipEmbedder:
    """Embeds pictures and prompts with one CLIP. Vectors are normalised in float32, whatever dtype the model uses."""

    def __init__(self, model: CLIPModel, tokenizer: Any, crop: Crop, device: torch.device) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenizer = tokenizer
        # Public configurations have 2 here, which is not the end-of-text token: it selects an older way to find it.
        self.model.text_model.eos_token_id = tokenizer.eos_token_id
        self.crop = crop
        config: Any = model.config
        self.side: int = config.vision_config.image_size
        self.max_tokens: int = min(MAX_TOKENS, config.text_config.max_position_embeddings)

    @classmethod
    def load(
        cls, folder: str | Path, crop: Crop, device: torch.device, dtype: torch.dtype, headers_only: bool = False
    ) -> ClipEmbedder:
        """Load a CLIP from a folder that has FILES.

        Raises:
            WeightsError: the files do not fit.
        """
        return cls(load_pretrained(CLIPModel, folder, dtype, headers_only), clip_tokenizer(folder), crop, device)

    @property
    def scale(self) -> Tensor:
        """The factor by which CLIP multiplies a cosine, without axes and in float32."""
        return self.model.logit_scale.detach().float().exp()

    def prepare(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> PreparedClip:
        """Crop pictures and tokenize their prompts, on the CPU."""
        return PreparedClip(self.crop_images(images), *self.tokenize(prompts))

    def crop_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """Crop (H, W, 3) uint8 pictures of any sizes to (N, S, S, 3) uint8."""
        return pinned(crop_squares(images, self.side, self.crop), self.model.device)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the token ids of the distinct prompts, (P, T), and the row of each prompt in them, (N,)."""
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        tokens = self.tokenizer(
            [break_special_tokens(prompt, self.tokenizer) for prompt in distinct],
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        rows_N = torch.tensor([distinct[prompt] for prompt in prompts])
        return pinned(tokens["input_ids"], self.model.device), pinned(rows_N, self.model.device)

    def embed_pixels(self, pixels_N3SS: Tensor) -> Tensor:
        """Return the (N, D) float32 unit vectors of pictures with normalised colours; differentiable."""
        pixels_N3SS = pixels_N3SS.to(self.model.device, self.model.dtype, non_blocking=True)
        return normalize_vectors(self.model.get_image_features(pixel_values=pixels_N3SS).pooler_output)

    def embed_cropped(self, images_N3HW: Tensor) -> Tensor:
        """Return the (N, D) float32 unit vectors of images in 0..1, cropped on the device; differentiable."""
        pixels_N3HW = images_N3HW.to(self.model.device).float()
        return self.embed_pixels(normalize(crop_pixels(pixels_N3HW, self.side, self.crop)))

    @torch.inference_mode()
    def embed_crops(self, bytes_NSS3: Tensor) -> Tensor:
        """Return the (N, D) float32 unit vectors of pictures from `crop_images`."""
        return self.embed_pixels(clip_pixels(bytes_NSS3, self.model.device, self.model.dtype))

    @torch.no_grad()
    def embed_tokens(self, ids_PT: Tensor, rows_N: Tensor) -> Tensor:
        """Return the (N, D) float32 unit vectors of prompts from `tokenize`."""
        ids_PT, rows_N = (tensor.to(self.model.device, non_blocking=True) for tensor in (ids_PT, rows_N))
        # No attention mask: under the causal mask, no token up to the end of a text sees the padding after it.
        return normalize_vectors(self.model.get_text_features(input_ids=ids_PT).pooler_output)[rows_N]

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """Return the (N, D) float32 unit vectors of (H, W, 3) uint8 pictures."""
        return self.embed_crops(self.crop_images(images))

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return the (N, D) float32 unit vectors of prompts."""
        return self.embed_tokens(*self.tokenize(prompts))

    def cosines(self, images_ND: Tensor, ids_PT: Tensor, rows_N: Tensor) -> Tensor:
        """Return the (N,) float32 cosines of pictures' unit vectors and those of their prompts from `tokenize`."""
        return (images_ND * self.embed_tokens(ids_PT, rows_N)).sum(dim=-1)


def clip_tokenizer(model: str | Path) -> Any:
    """Load CLIP's tokenizer from a folder. Raises WeightsError if it cannot be read."""
    return load_tokenizer(CLIPTokenizer, model, "tokenizer.json", "vocab.json")


def normalize_vectors(vectors_ND: Tensor) -> Tensor:
    """Divide vectors by their L2 norms, in float32."""
    return torch.nn.functional.normalize(vectors_ND.float(), dim=-1)
