"""A tiny random HPSv2 in the public layout: an open_clip ViT under `state_dict`, and its vocabulary."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from support.tiny.clip import TOKENS, write_tokenizer
from support.tiny.random_weights import Draw

VISION, TEXT, LAYERS, PROJECTION, SIDE, PATCH = 160, 128, 2, 48, 224, 56
HEADS = 2  # of both towers; a head has 80 (vision) or 64 (text) features


def write_hpsv2(folder: Path, *, file: str = "HPS_v2.1_compressed.pt", seed: int = 0) -> Path:
    """Writes the checkpoint and CLIP's tokenizer to `folder` and returns it."""
    vocabulary = write_tokenizer(folder)
    torch.save({"epoch": 0, "state_dict": hpsv2_weights(vocabulary, seed)}, folder / file)
    return folder


def hpsv2_weights(vocabulary: int, seed: int = 0) -> dict[str, Tensor]:
    draw = Draw(seed)
    patches = (SIDE // PATCH) ** 2
    weights = {
        "positional_embedding": draw(TOKENS, TEXT, scale=0.5),
        "text_projection": draw(TEXT, PROJECTION, scale=TEXT**-0.5),
        "logit_scale": torch.tensor(4.6052),
        "token_embedding.weight": draw(vocabulary, TEXT, scale=1.0),
        "visual.class_embedding": draw(VISION, scale=1.0),
        "visual.positional_embedding": draw(patches + 1, VISION, scale=0.5),
        "visual.proj": draw(VISION, PROJECTION, scale=VISION**-0.5),
        "visual.conv1.weight": draw(VISION, 3, PATCH, PATCH, scale=0.02),
    }
    weights |= draw.norm("ln_final", TEXT) | draw.norm("visual.ln_pre", VISION) | draw.norm("visual.ln_post", VISION)
    for tower, width in (("", TEXT), ("visual.", VISION)):
        for layer in range(LAYERS):
            name = f"{tower}transformer.resblocks.{layer}"
            weights[f"{name}.attn.in_proj_weight"] = draw(3 * width, width)
            weights[f"{name}.attn.in_proj_bias"] = draw(3 * width, scale=0.1)
            weights |= draw.linear(f"{name}.attn.out_proj", width, width)
            weights |= draw.linear(f"{name}.mlp.c_fc", width, 2 * width)
            weights |= draw.linear(f"{name}.mlp.c_proj", 2 * width, width)
            weights |= draw.norm(f"{name}.ln_1", width) | draw.norm(f"{name}.ln_2", width)
    return weights
