"""Stage 3, the teacher: a rectified flow on the autoencoder's latents, sampled in many steps.

The noisy latents are `x_t = (1 - t) x + t z`; the U-Net learns the velocity `z - x` (Liu et al., 2022), and a share of
the captions is left out so that sampling may be guided (Ho and Salimans, 2022).
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.data import CAPTION_NOISE, draw_pictures, draw_prompts
from drpo.shapes.pretrain.stage import StepRandom, fit
from drpo.shapes.pretrain.text import WIDTH

LATENT = (4, 8, 8)
LAST_TIMESTEP = 999

_BATCH = 64
_CAPTIONS_LEFT_OUT = 0.1


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


def encode_pictures(vae: AutoencoderKL, folder: Path, seed: int, *, pictures: int) -> tuple[Tensor, Tensor]:
    """Captioned latents to learn from: `latents_NChw` of unit deviation, and `prompts_N`, the captions' indices.

    Kept in `folder`; each process draws its share.
    """
    chunk = 256
    for part in range(processes.rank(), -(-pictures // chunk), processes.count()):
        file = folder / f"latents-{part:04d}.pt"
        if not file.exists():
            rng = np.random.default_rng([seed, 3, part])
            indices = draw_prompts(chunk, rng)
            shown = draw_pictures(indices, rng, noise=CAPTION_NOISE).to(memory_format=torch.channels_last)
            with torch.no_grad():
                latents = vae.encode(shown).latent_dist.mean * vae.config.scaling_factor
            torch.save({"latents": latents.contiguous(), "prompts": torch.from_numpy(indices)}, file)
    processes.wait_for_all()
    shares = [torch.load(file, weights_only=True) for file in sorted(folder.glob("latents-*.pt"))]
    return torch.cat([s["latents"] for s in shares]), torch.cat([s["prompts"] for s in shares])


def train_teacher(
    latents_NChw: Tensor, prompts_N: Tensor, text_PTD: Tensor, empty_TD: Tensor, folder: Path, seed: int, *, steps: int
) -> UNet2DConditionModel:
    """Trains the flow. `text_PTD` are the hidden states of all prompts, `empty_TD` those of the empty one."""
    torch.manual_seed(seed)
    unet = new_unet()

    batch = _BATCH // processes.count()

    def loss_of(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(latents_NChw), (batch,), generator=random.torch)
        x = latents_NChw[chosen]
        z = torch.randn(x.shape, generator=random.torch)
        t = torch.sigmoid(torch.randn(batch, generator=random.torch) + 0.2)
        left_out = torch.rand(batch, generator=random.torch) < _CAPTIONS_LEFT_OUT
        text = torch.where(left_out[:, None, None], empty_TD, text_PTD[prompts_N[chosen]])
        t_N111 = t[:, None, None, None]
        velocity = unet((1 - t_N111) * x + t_N111 * z, t * LAST_TIMESTEP, text).sample
        return F.mse_loss(velocity, z - x)

    fit("teacher", unet, loss_of, folder, steps=steps, learning_rate=1.5e-3, seed=seed, average=0.999)
    return unet.requires_grad_(False)


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel, z_NChw: Tensor, text_NTD: Tensor, empty_TD: Tensor, *, steps: int, guidance: float
) -> Tensor:
    """Latents drawn by `steps` Euler steps from noise to picture."""
    x = z_NChw
    times = torch.linspace(1, 0, steps + 1)
    for t, following in itertools.pairwise(times):
        velocity = unet(x, t * LAST_TIMESTEP, text_NTD).sample
        if guidance != 1.0:
            free = unet(x, t * LAST_TIMESTEP, empty_TD.expand_as(text_NTD)).sample
            velocity = free + guidance * (velocity - free)
        x = x + (following - t) * velocity
    return x
