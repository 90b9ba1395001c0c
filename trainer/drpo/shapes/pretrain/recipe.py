"""The recipe: all stages of the pretraining in order. It writes the two folders that the package contains."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from drpo.errors import ConfigError
from drpo.method.features.latent_mae_model import LatentMAE
from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.autoencoder import train_autoencoder
from drpo.shapes.pretrain.export import halve, save_pipeline
from drpo.shapes.pretrain.feature_map import encode_pictures, train_feature_map
from drpo.shapes.pretrain.one_step import draw_pairs, new_unet, scheduler_settings, train_generator
from drpo.shapes.pretrain.text import hidden_states, train_text_encoder


@dataclass(frozen=True)
class Recipe:
    """The steps and the data of every stage. The defaults are those of the shipped model.

    Attributes:
        seed: seed of every stage.
        autoencoder_crop_steps, autoencoder_steps, decoder_steps: steps of the three parts of stage 1.
        text_steps: steps of stage 2.
        pairs, generator_steps: pairs of noise and caption, and steps of stage 3.
        pictures, feature_map_steps: pictures and steps of stage 4.
    """

    seed: int = 0
    autoencoder_crop_steps: int = 1500
    autoencoder_steps: int = 500
    decoder_steps: int = 800
    text_steps: int = 1500
    pairs: int = 49_152
    generator_steps: int = 4000
    pictures: int = 48_000
    feature_map_steps: int = 1000

    @classmethod
    def tiny(cls) -> Recipe:
        """A recipe with a few steps per stage. It runs every stage, but its model draws only noise."""
        return cls(
            autoencoder_crop_steps=2, autoencoder_steps=2, decoder_steps=2, text_steps=3, pairs=256,
            generator_steps=2, pictures=256, feature_map_steps=2,
        )  # fmt: skip


def pretrain(recipe: Recipe, out: Path, num_processes: int = 1) -> None:
    """Trains and writes `out/generator` and `out/latent_mae`. Call it again after an interruption to resume.

    Raises:
        ConfigError: `out/work` belongs to another recipe or another number of processes.
    """
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    settings = {**asdict(recipe), "processes": num_processes}
    saved = work / "recipe.json"
    if saved.exists() and json.loads(saved.read_text(encoding="utf-8")) != settings:
        raise ConfigError(
            f"{saved} belongs to another recipe. To resume it, use the same options; otherwise choose another --out."
        )
    saved.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    _train_encoders(recipe, work)
    processes.run_in_processes(num_processes, _train_rest, recipe, out)


def _train_encoders(recipe: Recipe, work: Path) -> tuple[AutoencoderKL, CLIPTokenizer, CLIPTextModel]:
    """Trains the autoencoder and the text encoder, or loads them if they are finished.

    A single process trains them, because their batches are too small to split.
    """
    torch.set_num_threads(1)
    vae = train_autoencoder(
        work,
        recipe.seed,
        crop_steps=recipe.autoencoder_crop_steps,
        steps=recipe.autoencoder_steps,
        decoder_steps=recipe.decoder_steps,
    )
    return vae, *train_text_encoder(work, recipe.seed, steps=recipe.text_steps)


def _train_rest(recipe: Recipe, out: Path) -> None:
    """Trains the generator and the feature map, each process on its share of a batch, and exports all models."""
    work, seed = out / "work", recipe.seed
    vae, tokenizer, text_encoder = _train_encoders(recipe, work)
    text_PTD = hidden_states(tokenizer, text_encoder)
    noise_NChw, latents_NChw, prompts_N = draw_pairs(vae, work, seed, pairs=recipe.pairs)
    torch.manual_seed(seed)
    generator = train_generator(
        new_unet(), noise_NChw, latents_NChw, prompts_N, lambda chosen: {"encoder_hidden_states": text_PTD[chosen]},
        work, seed, steps=recipe.generator_steps,
    )  # fmt: skip
    random_latents_NChw = encode_pictures(vae, work, seed, pictures=recipe.pictures)
    feature_map = train_feature_map(
        random_latents_NChw, work, seed, steps=recipe.feature_map_steps, scaling_factor=vae.config.scaling_factor
    )
    if processes.rank() == 0:
        export(vae, tokenizer, text_encoder, generator, feature_map, out)


def export(
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    feature_map: LatentMAE,
    out: Path,
) -> None:
    """Writes the diffusers folder in the SD-Turbo layout and the feature map. The files are in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**scheduler_settings()),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save_pipeline(pipeline, out / "generator")
    halve(feature_map)
    feature_map.save(out / "latent_mae")
