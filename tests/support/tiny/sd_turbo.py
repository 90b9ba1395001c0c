"""A tiny random generator in the SD-Turbo layout, as diffusers saves it, with real classes and seeded weights.

Its images are coloured noise, 64x64 from 8x8 latents. The rest is as in the public model: epsilon prediction, trailing
spacing, a CLIP text encoder, a VAE that scales by 8 and has four latent channels.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ["a", "photo", "of", "red", "green", "blue", "circle", "square", "triangle", "two", "three", "left", "right"]


UNET = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
VAE = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
ONE_BLOCK_UNET = {
    "block_out_channels": (16,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}
ONE_BLOCK_VAE = {
    "block_out_channels": (8,),
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
}
"""Networks with as few different layers as there can be, because compiling takes time for each of them."""


def write_tiny_pipeline(folder: Path, seed: int = 0, *, one_block: bool = False) -> Path:
    """Writes the pipeline to `folder` and returns it. With one block, its images are as small as its latents."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    tokenizer_folder = folder / "tokenizer"
    tokenizer_folder.mkdir(parents=True)
    words = [f"{word}</w>" for word in WORDS]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [
        "<|startoftext|>",
        "<|endoftext|>",
        *dict.fromkeys(words + letters + [f"{letter}</w>" for letter in letters]),
    ]
    (tokenizer_folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (tokenizer_folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(tokenizer_folder / "vocab.json"),
        str(tokenizer_folder / "merges.txt"),
        model_max_length=32,
        unk_token="<|endoftext|>",
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
        **(ONE_BLOCK_UNET if one_block else UNET),
    )
    vae = AutoencoderKL(
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.18215,
        **(ONE_BLOCK_VAE if one_block else VAE),
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        prediction_type="epsilon",
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
