"""A tiny random HPSv2 in the public layout: an open_clip ViT under `state_dict`, and its vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from support.tiny.clip import TOKENS, write_tokenizer
from support.tiny.random_weights import Draw, on_cpu

VISION, TEXT, LAYERS, PROJECTION, SIDE, PATCH = 160, 128, 2, 48, 224, 56
HEADS = 2  # of both towers; a head has 80 (vision) or 64 (text) features


@dataclass(frozen=True)
class Sizes:
    """The sizes of the two towers."""

    vision: int = VISION
    vision_layers: int = LAYERS
    text: int = TEXT
    text_layers: int = LAYERS
    mlp_ratio: int = 2
    projection: int = PROJECTION
    patch: int = PATCH
    vocabulary: int = 0  # at least this many rows
    dtype: torch.dtype = torch.float32


TINY = Sizes()


def write_hpsv2(
    folder: Path, *, file: str = "HPS_v2.1_compressed.pt", seed: int = 0, sizes: Sizes = TINY, device: str = "cpu"
) -> Path:
    """Writes the checkpoint and CLIP's tokenizer to `folder` and returns it."""
    vocabulary = max(write_tokenizer(folder), sizes.vocabulary)
    weights = on_cpu(hpsv2_weights(vocabulary, seed, sizes, device))
    torch.save({"epoch": 0, "state_dict": weights}, folder / file)
    return folder


def hpsv2_weights(vocabulary: int, seed: int = 0, sizes: Sizes = TINY, device: str = "cpu") -> dict[str, Tensor]:
    draw = Draw(seed, device)
    vision, text, projection = sizes.vision, sizes.text, sizes.projection
    patches = (SIDE // sizes.patch) ** 2
    weights = {
        "positional_embedding": draw(TOKENS, text, scale=0.5),
        "text_projection": draw(text, projection, scale=text**-0.5),
        "logit_scale": torch.tensor(4.6052),
        "token_embedding.weight": draw(vocabulary, text, scale=1.0),
        "visual.class_embedding": draw(vision, scale=1.0),
        "visual.positional_embedding": draw(patches + 1, vision, scale=0.5),
        "visual.proj": draw(vision, projection, scale=vision**-0.5),
        "visual.conv1.weight": draw(vision, 3, sizes.patch, sizes.patch, scale=0.02),
    }
    weights |= draw.norm("ln_final", text) | draw.norm("visual.ln_pre", vision) | draw.norm("visual.ln_post", vision)
    towers = (("", text, sizes.text_layers), ("visual.", vision, sizes.vision_layers))
    for tower, width, layers in towers:
        for layer in range(layers):
            name = f"{tower}transformer.resblocks.{layer}"
            weights[f"{name}.attn.in_proj_weight"] = draw(3 * width, width)
            weights[f"{name}.attn.in_proj_bias"] = draw(3 * width, scale=0.1)
            weights |= draw.linear(f"{name}.attn.out_proj", width, width)
            weights |= draw.linear(f"{name}.mlp.c_fc", width, sizes.mlp_ratio * width)
            weights |= draw.linear(f"{name}.mlp.c_proj", sizes.mlp_ratio * width, width)
            weights |= draw.norm(f"{name}.ln_1", width) | draw.norm(f"{name}.ln_2", width)
    return {name: tensor.to(sizes.dtype) for name, tensor in weights.items()}
