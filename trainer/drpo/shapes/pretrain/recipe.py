"""The recipe: every stage in its order, from nothing to the two folders that are shipped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from drpo.errors import ConfigError
from drpo.method.features.latent_mae import LatentMAE
from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.autoencoder import train_autoencoder
from drpo.shapes.pretrain.data import train_prompts
from drpo.shapes.pretrain.feature_map import encode_pictures, train_feature_map
from drpo.shapes.pretrain.one_step import draw_pairs, new_scheduler, train_generator
from drpo.shapes.pretrain.text import tokenize, train_text_encoder


@dataclass(frozen=True)
class Recipe:
    """Steps and sizes of every stage. The defaults made the shipped model."""

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
        """A few steps of everything: shows that the recipe runs, and makes a model that draws nothing yet."""
        return cls(
            autoencoder_crop_steps=2, autoencoder_steps=2, decoder_steps=2, text_steps=3, pairs=256,
            generator_steps=2, pictures=256, feature_map_steps=2,
        )  # fmt: skip


def pretrain(recipe: Recipe, out: Path, processes_: int = 1) -> None:
    """Makes `out/generator` and `out/latent_mae`. Interrupted, it goes on from `out/work` when called again.

    Raises:
        ConfigError: if `out/work` holds the stages of another recipe or another number of processes.
    """
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    described = {**asdict(recipe), "processes": processes_}
    kept = work / "recipe.json"
    if kept.exists() and json.loads(kept.read_text()) != described:
        raise ConfigError(
            f"{kept} belongs to another recipe. Call with the same options to go on, or choose another --out."
        )
    kept.write_text(json.dumps(described, indent=2) + "\n")
    _make_foundations(recipe, work)
    processes.run_on(processes_, _make, recipe, out)


def _make_foundations(recipe: Recipe, work: Path) -> tuple[AutoencoderKL, CLIPTokenizer, CLIPTextModel]:
    """The autoencoder and the text encoder, in one process: their batches are too small to share out."""
    torch.set_num_threads(1)
    vae = train_autoencoder(
        work,
        recipe.seed,
        crop_steps=recipe.autoencoder_crop_steps,
        steps=recipe.autoencoder_steps,
        decoder_steps=recipe.decoder_steps,
    )
    return vae, *train_text_encoder(work, recipe.seed, steps=recipe.text_steps)


def _make(recipe: Recipe, out: Path) -> None:
    """Everything else, each process with its share of a batch; the finished foundations are read."""
    work, seed = out / "work", recipe.seed
    vae, tokenizer, text_encoder = _make_foundations(recipe, work)
    text_PTD = _hidden_states(tokenizer, text_encoder)
    noise_NChw, latents_NChw, prompts_N = draw_pairs(vae, work, seed, pairs=recipe.pairs)
    generator = train_generator(
        noise_NChw, latents_NChw, prompts_N, text_PTD, work, seed, steps=recipe.generator_steps
    )  # fmt: skip
    pictures_NChw = encode_pictures(vae, work, seed, pictures=recipe.pictures)
    feature_map = train_feature_map(pictures_NChw, work, seed, steps=recipe.feature_map_steps)
    if processes.rank() == 0:
        export(vae, tokenizer, text_encoder, generator, feature_map, out)


@torch.no_grad()
def _hidden_states(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> Tensor:
    """Of all train prompts: `(P, T, D)`."""
    ids_NT = tokenize(tokenizer, [record.prompt for record in train_prompts()])
    return torch.cat([text_encoder(ids).last_hidden_state for ids in ids_NT.split(256)])


def export(
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    feature_map: LatentMAE,
    out: Path,
) -> None:
    """Writes the diffusers folder in the SD-Turbo layout and the feature map, in half precision."""
    parts: list[nn.Module] = [vae, text_encoder, unet, feature_map]
    for part in parts:
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.data = tensor.data.to(torch.float16 if tensor.is_floating_point() else tensor.dtype).contiguous()
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out / "generator")
    # transformers 5 writes tokenizer.json alone; SD-Turbo's own folder has these two, which earlier versions read
    tokenizer.backend_tokenizer.model.save(str(out / "generator" / "tokenizer"))
    feature_map.save(out / "latent_mae")
