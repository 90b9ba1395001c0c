"""The recipe of `shapes-xl`: the same world in the SDXL-Turbo layout.

The autoencoder and the first text encoder are those of `shapes`, so its feature map fits too. New are a second text
encoder with a projection, and a U-Net that takes both encoders' tokens, the projected vector and the time ids. It
begins with the weights of the embedded U-Net (`drpo.shapes.pretrain.warm_start`), so it learns in minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from drpo.shapes.assets import generator_path
from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.data import train_prompts
from drpo.shapes.pretrain.export import save_pipeline
from drpo.shapes.pretrain.one_step import draw_pairs, new_unet, scheduler_settings, train_generator
from drpo.shapes.pretrain.text import TOKENS, WIDTH, hidden_states, tokenize, train_reader
from drpo.shapes.pretrain.warm_start import take_weights
from drpo.shapes.world import SIZE

SECOND_WIDTH = 96
"""Features of a token of the second text encoder, and of its projected vector."""

_TIME_WIDTH = 8  # features of each of the six time ids
_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class XLRecipe:
    """The steps and the data of each stage. The defaults are those of the shipped model.

    Attributes:
        seed: seed of every stage.
        text_steps: steps of the second text encoder.
        pairs, generator_steps: pairs of noise and caption, and steps of the generator.
    """

    seed: int = 0
    text_steps: int = 1500
    pairs: int = 12_288
    generator_steps: int = 120

    @classmethod
    def tiny(cls) -> XLRecipe:
        """A recipe with a few steps per stage. It runs every stage, but its model draws only noise."""
        return cls(text_steps=2, pairs=256, generator_steps=2)


def pretrain_xl(recipe: XLRecipe, out: Path, num_processes: int = 1, device: str = "cpu") -> None:
    """Trains and writes `out/generator`. Call it again after an interruption to resume.

    Args:
        recipe: what to train.
        out: the folder to write; `out/work` keeps the state.
        num_processes: processes that draw the pictures and, on a CPU, train together.
        device: where the generator is trained.
    """
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    base = StableDiffusionPipeline.from_pretrained(generator_path(), dtype=torch.float32)
    _second_encoder(base.tokenizer, recipe, work)
    processes.run_in_processes(num_processes, _draw, recipe, work)
    trainers = 1 if device.startswith("cuda") else num_processes
    processes.run_in_processes(trainers, _train, recipe, out, device)


def _draw(recipe: XLRecipe, work: Path) -> None:
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(generator_path(), subfolder="vae", dtype=torch.float32)
    draw_pairs(vae, work, recipe.seed, pairs=recipe.pairs)


def _train(recipe: XLRecipe, out: Path, device: str) -> None:
    """Trains the generator, each process on its share of a batch, and exports the pipeline."""
    work = out / "work"
    base = StableDiffusionPipeline.from_pretrained(generator_path(), dtype=torch.float32)
    second = _second_encoder(base.tokenizer, recipe, work)
    text_PTD, pooled_PD = _encode(base.tokenizer, base.text_encoder, second)
    noise_NChw, latents_NChw, prompts_N = draw_pairs(base.vae, work, recipe.seed, pairs=recipe.pairs)
    torch.manual_seed(recipe.seed)
    unet = new_xl_unet()
    states = text_PTD.split([WIDTH, SECOND_WIDTH], dim=-1)
    take_weights(unet, base.unet, states, hidden_states(base.tokenizer, base.text_encoder))
    unet.to(device)
    text_PTD, pooled_PD = text_PTD.to(device), pooled_PD.to(device)

    def conditions(chosen_N: Tensor) -> dict[str, Any]:
        time_ids_N6 = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], device=device).float().repeat(len(chosen_N), 1)
        return {
            "encoder_hidden_states": text_PTD[chosen_N],
            "added_cond_kwargs": {"text_embeds": pooled_PD[chosen_N], "time_ids": time_ids_N6},
        }

    train_generator(
        unet, noise_NChw, latents_NChw, prompts_N, conditions, work, recipe.seed,
        steps=recipe.generator_steps, learning_rate=_LEARNING_RATE,
    )  # fmt: skip
    if processes.rank() == 0:
        pipeline = StableDiffusionXLPipeline(
            vae=base.vae,
            text_encoder=base.text_encoder,
            text_encoder_2=second,
            tokenizer=base.tokenizer,
            tokenizer_2=base.tokenizer,
            unet=unet.cpu(),
            scheduler=EulerAncestralDiscreteScheduler(**scheduler_settings()),
        )
        save_pipeline(pipeline, out / "generator")


def new_xl_unet() -> UNet2DConditionModel:
    """An untrained U-Net that takes the conditions of SDXL, with the blocks and heads of the embedded one."""
    return new_unet(
        cross_attention_dim=WIDTH + SECOND_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=SECOND_WIDTH + 6 * _TIME_WIDTH,
    )


def _second_encoder(tokenizer: CLIPTokenizer, recipe: XLRecipe, work: Path) -> CLIPTextModelWithProjection:
    """Trains the second text encoder, or loads it if it is finished."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=SECOND_WIDTH,
            intermediate_size=3 * SECOND_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            projection_dim=SECOND_WIDTH,
            hidden_act="gelu",
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    train_reader("text-2", tokenizer, encoder, work, recipe.seed, steps=recipe.text_steps)
    return encoder


@torch.no_grad()
def _encode(
    tokenizer: CLIPTokenizer, first: CLIPTextModel, second: CLIPTextModelWithProjection
) -> tuple[Tensor, Tensor]:
    """The tokens of both encoders side by side (P, T, D), and the projected vectors (P, D), of all train prompts."""
    text, pooled = [], []
    for ids_NT in tokenize(tokenizer, [record.prompt for record in train_prompts()]).split(256):
        outputs = [encoder(ids_NT, output_hidden_states=True) for encoder in (first, second)]
        text.append(torch.cat([output.hidden_states[-2] for output in outputs], dim=-1))
        pooled.append(outputs[1].text_embeds)
    return torch.cat(text), torch.cat(pooled)
