"""Latents of given images: the encoder of a generator's VAE."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def encode_images(vae: Any, images_N3HW: Tensor, random: torch.Generator | None = None) -> Tensor:
    """The scaled latents (N, C, h, w) float32 of images, as the U-Net generates them.

    Args:
        vae: a diffusers `AutoencoderKL`.
        images_N3HW: values in [-1, 1].
        random: a generator on the CPU, for a sample of the posterior; None: its mode.
    """
    # Some encoders overflow in half precision, and say so.
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if upcast:
        vae.to(torch.float32)
    try:
        posterior = vae.encode(images_N3HW.to(vae.device, vae.dtype)).latent_dist
        if random is None:
            latents_NChw = posterior.mode().float()
        else:
            noise_NChw = torch.randn(posterior.mean.shape, generator=random).to(vae.device)
            latents_NChw = posterior.mean.float() + posterior.std.float() * noise_NChw
    finally:
        if upcast:
            vae.to(torch.float16)
    return latents_NChw * vae.config.scaling_factor


def identify_vae(vae: Any) -> str:
    """A hash of the weights and the scale of a VAE's latents."""
    digest = hashlib.sha256(f"{vae.config.scaling_factor} {vae.dtype}".encode())
    for name, weight in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
