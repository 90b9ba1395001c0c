"""Stage 1: the autoencoder (AutoencoderKL, eightfold, four channels)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from drpo.shapes.pretrain.data import draw_pictures, draw_prompts
from drpo.shapes.pretrain.stage import StepRandom, fit
from drpo.shapes.world import SIZE

_CROP = SIZE // 2
_CROPS_PER_STEP, _PICTURES_PER_STEP = 32, 16
_KL_WEIGHT = 1e-3
_DECODER_NOISE = 0.1  # in deviations of the latents


def new_autoencoder() -> AutoencoderKL:
    """Few channels where there are many pixels: decoding is the dearest part of a training step on a CPU."""
    return AutoencoderKL(
        block_out_channels=(8, 16, 48, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
    ).to(memory_format=torch.channels_last)


def train_autoencoder(folder: Path, seed: int, *, crop_steps: int, steps: int, decoder_steps: int) -> AutoencoderKL:
    """Trains on crops, then on whole pictures, then the decoder alone; sets the scaling factor to unit deviation.

    Resumable: `folder` keeps the state of each of the three.
    """
    torch.manual_seed(seed)
    vae = new_autoencoder()

    def reconstruction_loss(pictures: Tensor, random: StepRandom) -> Tensor:
        posterior = vae.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=random.torch)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        return _error(decoded, pictures) + _KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    def decoder_loss(random: StepRandom) -> Tensor:
        pictures = _pictures(random, _PICTURES_PER_STEP)
        with torch.no_grad():
            mean = vae.encode(pictures).latent_dist.mean
            # A generator's latents are never exact: the decoder learns to draw cleanly from slightly wrong ones.
            noisy = mean + _DECODER_NOISE * mean.std() * torch.randn(mean.shape, generator=random.torch)
        return _error(vae.decode(noisy).sample, pictures)

    fit("autoencoder-crops", vae, lambda random: reconstruction_loss(_crops(random), random), folder,
        steps=crop_steps, learning_rate=2.5e-3, seed=seed, average=0.99)  # fmt: skip
    fit("autoencoder", vae, lambda random: reconstruction_loss(_pictures(random, _PICTURES_PER_STEP), random), folder,
        steps=steps, learning_rate=1e-3, seed=seed, average=0.99)  # fmt: skip
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    fit("decoder", vae, decoder_loss, folder, steps=decoder_steps, learning_rate=1.5e-3, seed=seed, average=0.99)
    vae.requires_grad_(False)
    with torch.no_grad():
        latents = vae.encode(_pictures(StepRandom(seed, "scaling", 0), 512)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


def _pictures(random: StepRandom, count: int) -> Tensor:
    pictures = draw_pictures(draw_prompts(count, random.numpy), random.numpy)
    return pictures.to(memory_format=torch.channels_last)


def _crops(random: StepRandom) -> Tensor:
    """One crop of each picture, a quarter of its area: `(N, 3, 32, 32)`."""
    pictures = _pictures(random, _CROPS_PER_STEP)
    corners = random.numpy.integers(0, SIZE - _CROP + 1, size=(len(pictures), 2))
    crops = [p[:, y : y + _CROP, x : x + _CROP] for p, (y, x) in zip(pictures, corners, strict=True)]
    return torch.stack(crops).to(memory_format=torch.channels_last)


def _error(decoded: Tensor, pictures: Tensor) -> Tensor:
    """Absolute and squared error, and the absolute error of the differences between neighbours (edges)."""
    error = decoded - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + edges
