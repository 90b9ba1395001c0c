"""The embedded generators: `shapes-xl` lives in every part of its layout, and began as `shapes`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

from drpo.config import load_config
from drpo.generators.base import Conditions
from drpo.generators.sdxl_turbo import SDXLTurboGenerator
from drpo.shapes.assets import GENERATORS, generator_path
from drpo.shapes.pretrain.one_step import new_unet
from drpo.shapes.pretrain.text import WIDTH, hidden_states
from drpo.shapes.pretrain.warm_start import take_weights
from drpo.training.build import build_generator

PROMPTS = ["a red star above a blue ring", "three green moons"]


@pytest.fixture(scope="module")
def generator() -> SDXLTurboGenerator:
    generator = build_generator(load_config("shapes-xl", ["lora=null"]))
    assert isinstance(generator, SDXLTurboGenerator)
    return generator


@torch.no_grad()
def draw(generator: SDXLTurboGenerator, change: Callable[[Conditions], Conditions] = lambda one: one) -> Tensor:
    noise_NChw = generator.noise(2, torch.Generator().manual_seed(3))
    return generator.decode_float(generator.sample(noise_NChw, change(generator.encode_prompts(PROMPTS))))


def test_stock_diffusers_draws_the_same(generator: SDXLTurboGenerator) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(generator_path("shapes-xl"))
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(3)
    images = pipeline(PROMPTS, num_inference_steps=1, guidance_scale=0.0, generator=noise, output_type="np").images
    ours_NHWC = (draw(generator) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(ours_NHWC, images, atol=1e-5)


def test_each_part_of_the_conditions_counts(generator: SDXLTurboGenerator) -> None:
    """A part of another prompt changes the picture. The pooled vector does so a little: the tokens say the same."""

    def swap(first: int, last: int) -> Callable[[Conditions], Conditions]:
        def change(one: Conditions) -> Conditions:
            text_NTD = one.text_NTD.clone()
            text_NTD[..., first:last] = text_NTD[..., first:last].flip(0)
            return replace(one, text_NTD=text_NTD)

        return change

    def swap_pooled(one: Conditions) -> Conditions:
        assert one.pooled_ND is not None
        return replace(one, pooled_ND=one.pooled_ND.flip(0))

    own = draw(generator)
    width = generator.encode_prompts(PROMPTS).text_NTD.shape[-1]
    for change, least in ((swap(0, WIDTH), 0.05), (swap(WIDTH, width), 0.05), (swap_pooled, 0.002)):
        assert (draw(generator, change) - own).abs().mean() > least


def test_all_have_one_autoencoder_and_are_small() -> None:
    weights = {(generator_path(name) / "vae/diffusion_pytorch_model.safetensors").read_bytes() for name in GENERATORS}
    assert len(weights) == 1  # so the feature map fits all
    for name in GENERATORS:
        assert sum(file.stat().st_size for file in Path(generator_path(name)).rglob("*") if file.is_file()) < 12e6


@torch.no_grad()
def test_a_unet_of_the_sdxl_layout_begins_as_the_embedded_one() -> None:
    """If both text encoders are the embedded one, it predicts the same, up to the penalty of the fit."""
    base = StableDiffusionPipeline.from_pretrained(generator_path())
    states_PTD = hidden_states(base.tokenizer, base.text_encoder)[::50]
    torch.manual_seed(0)
    unet = new_unet(
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    )
    take_weights(unet, base.unet, [states_PTD, states_PTD], states_PTD)
    latents_NChw = torch.randn(4, 4, 8, 8)
    more = {"text_embeds": torch.randn(4, 16), "time_ids": 64 * torch.ones(4, 6)}
    ours_NChw = unet(latents_NChw, 999, torch.cat([states_PTD[:4]] * 2, dim=-1), added_cond_kwargs=more).sample
    theirs_NChw = base.unet(latents_NChw, 999, states_PTD[:4]).sample
    assert (ours_NChw - theirs_NChw).abs().max() < 0.02 * theirs_NChw.abs().max()
