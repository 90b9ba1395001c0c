"""Stage 5: the feature map, a small latent-MAE on the latents of correctly captioned pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from drpo.features.latent_mae import LatentMAE, LatentMAEConfig
from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.stage import StepRandom, fit

_BATCH = 64


def train_feature_map(latents_NChw: Tensor, folder: Path, seed: int, *, steps: int) -> LatentMAE:
    """Trains on the latents that the teacher learns from; captions play no part."""
    torch.manual_seed(seed)
    # Eight groups at most: a GroupNorm of two channels a group would take the latents' level, hence colour, away.
    model = LatentMAE(LatentMAEConfig(widths=(48, 96, 144), blocks=(2, 2, 2), norm_groups=8))
    batch = _BATCH // processes.count()

    def loss_of(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(latents_NChw), (batch,), generator=random.torch)
        return model.masked_loss(latents_NChw[chosen], random.torch)

    fit("latent-mae", model, loss_of, folder, steps=steps, learning_rate=2e-3, seed=seed, average=0.998)
    return model.requires_grad_(False)
