"""Stage 3, the generator: one step from noise to latents, by regression on coupled pairs of noise and scene.

It predicts what `EulerDiscreteScheduler` calls epsilon at a noise level sigma of 1, where one step is
`x = z - epsilon(z / sqrt(2))`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
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


def new_scheduler() -> EulerDiscreteScheduler:
    """SD-Turbo's scheduler, with constant betas such that sigma at the last timestep is 1."""
    beta = 1 - 0.5 ** (1 / (LAST_TIMESTEP + 1))
    return EulerDiscreteScheduler(
        num_train_timesteps=LAST_TIMESTEP + 1,
        beta_start=beta,
        beta_end=beta,
        beta_schedule="linear",
        prediction_type="epsilon",
        timestep_spacing="trailing",
        steps_offset=1,
    )


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT[1],
        in_channels=LATENT[0],
        out_channels=LATENT[0],
        layers_per_block=1,
        block_out_channels=(64, 96),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    ).to(memory_format=torch.channels_last)


@torch.no_grad()
def draw_pairs(vae: AutoencoderKL, folder: Path, seed: int, *, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noises and the latents of their scenes `(N, 4, 8, 8)`, of unit deviation, and the captions' indices `(N,)`.

    Kept in `folder`; each process draws its share.
    """
    for part in range(processes.rank(), -(-pairs // _PAIRS_PER_FILE), processes.count()):
        file = folder / f"pairs-{part:04d}.pt"
        if file.exists():
            continue
        rng = np.random.default_rng([seed, 4, part])
        prompts_N = draw_prompts(_PAIRS_PER_FILE, rng)
        noise_NChw = rng.standard_normal((_PAIRS_PER_FILE, *LATENT), dtype=np.float32)
        pictures_NHWC = np.stack(
            [
                draw_scene(coupled_scene(train_prompts()[i].metadata, modes_M), *background(modes_M))
                for i, modes_M in zip(prompts_N, modes(noise_NChw), strict=True)
            ]
        )
        latents = [vae.encode(chunk).latent_dist.mean for chunk in to_tensor(pictures_NHWC).split(64)]
        torch.save(
            {
                "noise": torch.from_numpy(noise_NChw),
                "latents": (torch.cat(latents) * vae.config.scaling_factor).contiguous(),
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
    noise_NChw: Tensor, latents_NChw: Tensor, prompts_N: Tensor, text_PTD: Tensor,
    folder: Path, seed: int, *, steps: int,
) -> UNet2DConditionModel:  # fmt: skip
    """Regresses the latents from their noises: squared error and 0.3 of the absolute error."""
    torch.manual_seed(seed)
    unet = new_unet()
    batch = _BATCH // processes.count()

    def loss_of(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(noise_NChw), (batch,), generator=random.torch)
        z = noise_NChw[chosen]
        epsilon = unet(z / math.sqrt(2), LAST_TIMESTEP, text_PTD[prompts_N[chosen]]).sample
        error = z - epsilon - latents_NChw[chosen]
        return error.square().mean() + _ABSOLUTE_ERROR_WEIGHT * error.abs().mean()

    fit("generator", unet, loss_of, folder, steps=steps, learning_rate=1.5e-3, seed=seed, average=0.999)
    return unet.requires_grad_(False)
