"""Tiny random pipelines of each layout, saved by diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from support.stock import World
from support.tiny.sdxl_turbo import write_tiny_xl_pipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def save_sd_turbo(folder: Path, **scheduler_changes: object) -> Path:
    """Saves a pipeline like stabilityai/sd-turbo but smaller; 16x16 latents, 128x128 images."""
    torch.manual_seed(0)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "!", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = folder / "vocabulary"
    vocabulary.mkdir(parents=True)
    (vocabulary / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (vocabulary / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(vocabulary / "vocab.json"), str(vocabulary / "merges.txt"), pad_token="!", model_max_length=77
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_act="gelu",
            projection_dim=16,
            bos_token_id=len(words) - 2,
            eos_token_id=len(words) - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=[1, 2, 2, 2],
        cross_attention_dim=32,
        use_linear_projection=True,
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
        scaling_factor=0.18215,
    )
    scheduler = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
        "steps_offset": 1,
    }
    StableDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        scheduler=EulerDiscreteScheduler(**{**scheduler, **scheduler_changes}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sd_turbo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd_turbo(tmp_path_factory.mktemp("pipelines") / "sd-turbo")


@pytest.fixture(scope="session")
def sdxl_turbo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_xl_pipeline(tmp_path_factory.mktemp("pipelines") / "sdxl-turbo")


@pytest.fixture(scope="session", params=["sd-turbo", "sdxl-turbo"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "sd-turbo":
        return World(request.getfixturevalue("sd_turbo"), StableDiffusionPipeline)
    return World(request.getfixturevalue("sdxl_turbo"), StableDiffusionXLPipeline)
