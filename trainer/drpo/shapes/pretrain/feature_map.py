"""Stage 4: the feature map, a small latent-MAE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from drpo.method.features.latent_mae_model import LatentMAE, LatentMAEConfig
from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.data import draw_pictures, draw_prompts
from drpo.shapes.pretrain.stage import StepRandom, fit

_BATCH = 64
_PICTURES_PER_FILE = 256


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, folder: Path, seed: int, *, pictures: int) -> Tensor:
    """Encodes pictures of random scenes; latents (N, 4, 8, 8) with a standard deviation of 1.

    They are cached in `folder`; each process draws its share.
    """
    for part in range(processes.rank(), -(-pictures // _PICTURES_PER_FILE), processes.count()):
        file = folder / f"latents-{part:04d}.pt"
        if not file.exists():
            rng = np.random.default_rng([seed, 3, part])
            pictures_NCHW = draw_pictures(draw_prompts(_PICTURES_PER_FILE, rng), rng)
            mean_NChw = vae.encode(pictures_NCHW.to(memory_format=torch.channels_last)).latent_dist.mean
            torch.save((mean_NChw * vae.config.scaling_factor).contiguous(), file)
    processes.wait_for_all()
    return torch.cat([torch.load(file, weights_only=True) for file in sorted(folder.glob("latents-*.pt"))])


def train_feature_map(latents_NChw: Tensor, folder: Path, seed: int, *, steps: int, scaling_factor: float) -> LatentMAE:
    """Trains the feature map on latents of random pictures. It needs neither captions nor the generator."""
    torch.manual_seed(seed)
    # At most eight groups: with only two channels per group, GroupNorm would remove the mean, and with it the colour.
    model = LatentMAE(
        LatentMAEConfig(widths=(48, 96, 144), blocks=(2, 2, 2), norm_groups=8, scaling_factor=scaling_factor)
    )
    batch = _BATCH // processes.count()

    def compute_loss(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(latents_NChw), (batch,), generator=random.torch)
        return model.masked_loss(latents_NChw[chosen], random.torch)

    fit("latent-mae", model, compute_loss, folder, steps=steps, learning_rate=2e-3, seed=seed, ema_decay=0.998)
    return model.requires_grad_(False)
