"""Stage 4: the feature map, a small latent-MAE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from drpo.method.features.latent_mae import LatentMAE, LatentMAEConfig
from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.data import draw_pictures, draw_prompts
from drpo.shapes.pretrain.stage import StepRandom, fit

_BATCH = 64
_PICTURES_PER_FILE = 256


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, folder: Path, seed: int, *, pictures: int) -> Tensor:
    """Latents of randomly drawn scenes, of unit deviation: `(N, 4, 8, 8)`.

    Kept in `folder`; each process draws its share.
    """
    for part in range(processes.rank(), -(-pictures // _PICTURES_PER_FILE), processes.count()):
        file = folder / f"latents-{part:04d}.pt"
        if not file.exists():
            rng = np.random.default_rng([seed, 3, part])
            shown = draw_pictures(draw_prompts(_PICTURES_PER_FILE, rng), rng).to(memory_format=torch.channels_last)
            torch.save((vae.encode(shown).latent_dist.mean * vae.config.scaling_factor).contiguous(), file)
    processes.wait_for_all()
    return torch.cat([torch.load(file, weights_only=True) for file in sorted(folder.glob("latents-*.pt"))])


def train_feature_map(latents_NChw: Tensor, folder: Path, seed: int, *, steps: int) -> LatentMAE:
    """Trains on latents of pictures of the world; captions and noises play no part."""
    torch.manual_seed(seed)
    # Eight groups at most: a GroupNorm of two channels a group would take the latents' level, hence colour, away.
    model = LatentMAE(LatentMAEConfig(widths=(48, 96, 144), blocks=(2, 2, 2), norm_groups=8))
    batch = _BATCH // processes.count()

    def loss_of(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(latents_NChw), (batch,), generator=random.torch)
        return model.masked_loss(latents_NChw[chosen], random.torch)

    fit("latent-mae", model, loss_of, folder, steps=steps, learning_rate=2e-3, seed=seed, average=0.998)
    return model.requires_grad_(False)
