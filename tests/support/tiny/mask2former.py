"""A tiny random Mask2Former in the layout of `facebook/mask2former-swin-small-coco-instance`, with sure classes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig


def write_mask2former(folder: Path, seed: int = 0) -> Path:
    """Writes the model and its preprocessor's file to `folder` and returns it."""
    torch.manual_seed(seed)
    backbone = SwinConfig(
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=4,
        num_queries=12,
        num_labels=80,
    )
    model = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        model.class_predictor.weight.mul_(300)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"do_normalize": True, "do_resize": True, "feature_extractor_type": "MaskFormerFeatureExtractor"})
    )
    return folder
