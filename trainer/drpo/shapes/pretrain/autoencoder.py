"""Stage 1: the autoencoder (AutoencoderKL, downsampling by 8, four latent channels)."""

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
_DECODER_NOISE = 0.1  # in standard deviations of the latents


def new_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder. It has few channels at high resolution, because decoding is slow on a CPU."""
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
    """Trains on crops, then on whole pictures, then only the decoder, and sets the scaling factor.

    The scaling factor gives the latents a standard deviation of 1. The state of each of the three parts is saved in
    `folder`, from which an interrupted run resumes.
    """
    torch.manual_seed(seed)
    vae = new_autoencoder()

    def reconstruction_loss(pictures_NCHW: Tensor, random: StepRandom) -> Tensor:
        posterior = vae.encode(pictures_NCHW).latent_dist
        noise_NChw = torch.randn(posterior.mean.shape, generator=random.torch)
        decoded_NCHW = vae.decode(posterior.mean + posterior.std * noise_NChw).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return _reconstruction_error(decoded_NCHW, pictures_NCHW) + _KL_WEIGHT * kl

    def decoder_loss(random: StepRandom) -> Tensor:
        pictures_NCHW = _draw_batch(random, _PICTURES_PER_STEP)
        with torch.no_grad():
            mean_NChw = vae.encode(pictures_NCHW).latent_dist.mean
            # A generator's latents are never exact, so the decoder learns to draw cleanly from slightly wrong ones.
            noise_NChw = torch.randn(mean_NChw.shape, generator=random.torch)
            noisy_NChw = mean_NChw + _DECODER_NOISE * mean_NChw.std() * noise_NChw
        return _reconstruction_error(vae.decode(noisy_NChw).sample, pictures_NCHW)

    fit("autoencoder-crops", vae, lambda random: reconstruction_loss(_draw_crops(random), random), folder,
        steps=crop_steps, learning_rate=2.5e-3, seed=seed, ema_decay=0.99)  # fmt: skip
    fit("autoencoder", vae, lambda random: reconstruction_loss(_draw_batch(random, _PICTURES_PER_STEP), random), folder,
        steps=steps, learning_rate=1e-3, seed=seed, ema_decay=0.99)  # fmt: skip
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    fit("decoder", vae, decoder_loss, folder, steps=decoder_steps, learning_rate=1.5e-3, seed=seed, ema_decay=0.99)
    vae.requires_grad_(False)
    with torch.no_grad():
        latents_NChw = vae.encode(_draw_batch(StepRandom(seed, "scaling", 0), 512)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents_NChw.std().item(), 5))
    return vae


def _draw_batch(random: StepRandom, count: int) -> Tensor:
    pictures_NCHW = draw_pictures(draw_prompts(count, random.numpy), random.numpy)
    return pictures_NCHW.to(memory_format=torch.channels_last)


def _draw_crops(random: StepRandom) -> Tensor:
    """Draws pictures, and cuts one crop from each, a quarter of its area; (N, 3, 32, 32)."""
    pictures_NCHW = _draw_batch(random, _CROPS_PER_STEP)
    corners = random.numpy.integers(0, SIZE - _CROP + 1, size=(len(pictures_NCHW), 2))
    crops = [p[:, y : y + _CROP, x : x + _CROP] for p, (y, x) in zip(pictures_NCHW, corners, strict=True)]
    return torch.stack(crops).to(memory_format=torch.channels_last)


def _reconstruction_error(decoded_NCHW: Tensor, pictures_NCHW: Tensor) -> Tensor:
    """The absolute error, plus twice the squared error, plus the absolute error of edges (neighbour differences)."""
    error = decoded_NCHW - pictures_NCHW
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + edges
