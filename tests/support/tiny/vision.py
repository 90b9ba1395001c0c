"""Tiny random vision transformers in the layouts of facebook/vit-mae-base and facebook/dinov2-base."""

from __future__ import annotations

import json
from pathlib import Path

import torch

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def write_tiny_vit_mae(folder: Path, seed: int = 0, layers: int = 2) -> Path:
    """Writes a ViT-MAE of a few layers for images of 32x32, with its decoder as in the public file."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(seed)
    config = ViTMAEConfig(
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=8,
        decoder_num_attention_heads=2,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=16,
    )
    return _write(ViTMAEForPreTraining(config), folder, {"size": {"height": 32, "width": 32}})


def write_tiny_dinov2(folder: Path, seed: int = 0) -> Path:
    """Writes a DINOv2 of two layers that sees images of 28x28, although it was trained on 56x56."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=7
    )
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    return _write(Dinov2Model(config), folder, sizes)


def _write(model: torch.nn.Module, folder: Path, sizes: dict) -> Path:
    for name, parameter in model.named_parameters():  # fresh biases are 0, and would not be tested
        if "position_embeddings" not in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**IMAGENET, **sizes}))
    return folder
