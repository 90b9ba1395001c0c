"""Stage 3: the generator, trained by regression on coupled pairs of noise and scene.

It maps noise to latents in one step. It predicts what the schedulers of diffusers call epsilon at the noise level
sigma = 1, where the step is `x = z - epsilon(z / sqrt(2))`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor

from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.coupling import background, coupled_scene, modes
from drpo.shapes.pretrain.data import draw_prompts, to_tensor, train_prompts
from drpo.shapes.pretrain.stage import StepRandom, fit
from drpo.shapes.pretrain.text import WIDTH
from drpo.shapes.world import draw_scene

LATENT = (4, 8, 8)
LAST_TIMESTEP = 999

_BATCH = 64
_PAIRS_PER_FILE = 256
_ABSOLUTE_ERROR_WEIGHT = 0.3


Conditions = Callable[[Tensor], dict[str, Any]]
"""Gives the conditions of a U-Net for prompts, which are named by their indices into `train_prompts()`."""


def scheduler_settings() -> dict[str, Any]:
    """The settings of SD-Turbo's scheduler, but with constant betas, chosen so that sigma is 1 at the last timestep."""
    beta = 1 - 0.5 ** (1 / (LAST_TIMESTEP + 1))
    return {
        "num_train_timesteps": LAST_TIMESTEP + 1,
        "beta_start": beta,
        "beta_end": beta,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
        "steps_offset": 1,
    }


def new_unet(**changes: Any) -> UNet2DConditionModel:
    """An untrained U-Net. `changes` are settings of another layout."""
    settings = {
        "sample_size": LATENT[1],
        "in_channels": LATENT[0],
        "out_channels": LATENT[0],
        "layers_per_block": 1,
        "block_out_channels": (64, 96),
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    }
    return UNet2DConditionModel(**{**settings, **changes}).to(memory_format=torch.channels_last)


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, prompts_N: NDArray[np.int64], modes_NM: NDArray[np.float64]) -> Tensor:
    """Draws the coupled scene of each caption and its modes, and encodes it.

    Args:
        vae: the autoencoder.
        prompts_N: indices into `train_prompts()`.
        modes_NM: what decides all that the captions leave open; see `drpo.shapes.pretrain.coupling`.

    Returns:
        Latents (N, 4, 8, 8) with a standard deviation of 1.
    """
    pictures_NHWC = np.stack(
        [
            draw_scene(coupled_scene(train_prompts()[i].metadata, modes_M), *background(modes_M))
            for i, modes_M in zip(prompts_N, modes_NM, strict=True)
        ]
    )
    chunks_NChw = [vae.encode(chunk).latent_dist.mean for chunk in to_tensor(pictures_NHWC).split(64)]
    return (torch.cat(chunks_NChw) * vae.config.scaling_factor).contiguous()


@torch.no_grad()
def draw_pairs(vae: AutoencoderKL, folder: Path, seed: int, *, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws noises and captions, and encodes the pictures of the coupled scenes.

    They are cached in `folder`; each process draws its share.

    Returns:
        Noises (N, 4, 8, 8); latents (N, 4, 8, 8) with a standard deviation of 1; and the captions, (N,) indices into
        `train_prompts()`.
    """
    for part in range(processes.rank(), -(-pairs // _PAIRS_PER_FILE), processes.count()):
        file = folder / f"pairs-{part:04d}.pt"
        if file.exists():
            continue
        rng = np.random.default_rng([seed, 4, part])
        prompts_N = draw_prompts(_PAIRS_PER_FILE, rng)
        noise_NChw = rng.standard_normal((_PAIRS_PER_FILE, *LATENT), dtype=np.float32)
        latents_NChw = encode_scenes(vae, prompts_N, modes(noise_NChw))
        torch.save(
            {
                "noise": torch.from_numpy(noise_NChw),
                "latents": latents_NChw,
                "prompts": torch.from_numpy(prompts_N),
            },
            file,
        )
    processes.wait_for_all()
    parts = [torch.load(file, weights_only=True) for file in sorted(folder.glob("pairs-*.pt"))]
    return (
        torch.cat([part["noise"] for part in parts]),
        torch.cat([part["latents"] for part in parts]),
        torch.cat([part["prompts"] for part in parts]),
    )


def train_generator(
    unet: UNet2DConditionModel,
    noise_NChw: Tensor,
    latents_NChw: Tensor,
    prompts_N: Tensor,
    conditions: Conditions,
    folder: Path,
    seed: int,
    *,
    steps: int,
    learning_rate: float = 1.5e-3,
) -> UNet2DConditionModel:
    """Trains the generator to predict latents from noises. The loss is squared plus 0.3 times absolute error.

    Args:
        unet: a U-Net. It is trained where its weights are.
        noise_NChw, latents_NChw, prompts_N: from `draw_pairs`.
        conditions: what the U-Net takes besides its input and the timestep, for prompts with these indices.
        folder: where the stage is saved.
        seed: of the batches.
        steps, learning_rate: of the optimizer.
    """
    batch, device = _BATCH // processes.count(), unet.device
    noise_NChw, latents_NChw = noise_NChw.to(device), latents_NChw.to(device)

    def compute_loss(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(noise_NChw), (batch,), generator=random.torch)
        z_NChw = noise_NChw[chosen]
        epsilon_NChw = unet(z_NChw / math.sqrt(2), LAST_TIMESTEP, **conditions(prompts_N[chosen])).sample
        return regression_error(z_NChw - epsilon_NChw, latents_NChw[chosen])

    fit("generator", unet, compute_loss, folder, steps=steps, learning_rate=learning_rate, seed=seed, ema_decay=0.999)
    return unet.requires_grad_(False)


def regression_error(predicted_NChw: Tensor, latents_NChw: Tensor) -> Tensor:
    """The mean squared error plus 0.3 times the mean absolute error."""
    error_NChw = predicted_NChw - latents_NChw
    return error_NChw.square().mean() + _ABSOLUTE_ERROR_WEIGHT * error_NChw.abs().mean()
