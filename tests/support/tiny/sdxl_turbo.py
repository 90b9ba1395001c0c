"""A tiny random generator in the SDXL-Turbo layout, as diffusers saves it, with real classes and seeded weights.

The layout is the public model's: two CLIP tokenizers and text encoders, the second with a projection, a U-Net that
takes pooled text and time ids, a VAE that scales by 8 with `force_upcast`, and an EulerAncestralDiscreteScheduler.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch


def write_tiny_xl_pipeline(folder: Path, seed: int = 0, **scheduler_changes: object) -> Path:
    """Writes the pipeline to `folder` and returns it; 8x8 latents, 64x64 images."""
    from diffusers import (
        AutoencoderKL,
        EulerAncestralDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(seed)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "!", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = folder / "vocabulary"
    vocabulary.mkdir(parents=True)
    (vocabulary / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (vocabulary / "merges.txt").write_text("#version: 0.2\n")

    def tokenizer(pad_token: str) -> CLIPTokenizer:
        files = str(vocabulary / "vocab.json"), str(vocabulary / "merges.txt")
        return CLIPTokenizer(*files, pad_token=pad_token, model_max_length=77)

    def text_config(width: int, activation: str) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=3,
            num_attention_heads=2,
            hidden_act=activation,
            projection_dim=24,
            bos_token_id=len(words) - 2,
            eos_token_id=len(words) - 1,
        )

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 2],
        attention_head_dim=[1, 2, 4],
        cross_attention_dim=16 + 24,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=24 + 6 * 4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=128,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    scheduler = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
        "steps_offset": 1,
    }
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text_config(16, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(text_config(24, "gelu")),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        unet=unet,
        scheduler=EulerAncestralDiscreteScheduler(**{**scheduler, **scheduler_changes}),
    ).save_pretrained(folder)
    return folder
