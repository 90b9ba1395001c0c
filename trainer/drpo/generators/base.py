"""The interface of a one-step generator and of its adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Conditions:
    """N encoded prompts, as the network takes them.

    Attributes:
        text_NTD: the encoded tokens.
        pooled_ND: one vector for each prompt; None in layouts that have none.
    """

    text_NTD: Tensor
    pooled_ND: Tensor | None = None

    def __len__(self) -> int:
        return self.text_NTD.shape[0]

    def expand(self, count: int) -> Conditions:
        """The conditions of `count` images: these ones if there are so many, or one prompt for all images."""
        pooled_ND = self.pooled_ND.expand(count, -1) if self.pooled_ND is not None else None
        return Conditions(self.text_NTD.expand(count, -1, -1), pooled_ND)


@dataclass(frozen=True)
class Layout:
    """What a feature map must fit.

    Attributes:
        latent_shape: (C, h, w) of one latent, such as (4, 64, 64).
        scaling_factor: what the VAE multiplies its latents by, such as 0.18215.
        blocks: the U-Net's blocks by name, such as "down_blocks.0" and "mid_block", each with (h, w) of its output.
    """

    latent_shape: tuple[int, int, int]
    scaling_factor: float
    blocks: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> Layout:
        """The layout that the configs of a U-Net and a VAE of diffusers describe."""
        size = unet["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        depth = len(unet["down_block_types"])
        sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in range(depth)]
        # Each block but the last halves its output on the way down, or doubles it on the way up.
        down = {f"down_blocks.{i}": sizes[min(i + 1, depth - 1)] for i in range(depth)}
        up = {f"up_blocks.{i}": sizes[max(depth - 2 - i, 0)] for i in range(depth)}
        blocks = {**down, "mid_block": sizes[-1], **up}
        return cls((unet["in_channels"], height, width), vae.get("scaling_factor", 0.18215), blocks)


class Adapter(Protocol):
    """The trainable weights: on top of a frozen generator, or in place of its U-Net."""

    def parameters(self) -> list[nn.Parameter]:
        """The weights in a fixed order; an empty list if there is no adapter."""
        ...

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU, by name."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copies the weights in `state` into the adapter in place, so that its optimizer stays valid."""
        ...

    def save(self, folder: str | Path) -> None:
        """Writes the adapter into a folder, as diffusers does."""
        ...

    def load(self, path: str | Path) -> None:
        """Replaces the weights by those of a file or folder of the same kind."""
        ...


class OneStepGenerator(Protocol):
    """Maps prompts and noises to latents and images in one call of a network.

    Axes: N images, T tokens, D features of a token, (C, h, w) of a latent, (H, W) of an image in pixels.
    """

    @property
    def adapter(self) -> Adapter:
        """The adapter; everything else of the generator is frozen."""
        ...

    @property
    def vae(self) -> Any:
        """The diffusers autoencoder between images and latents."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of its images."""
        ...

    def load_adapter(self, path: str | Path) -> None:
        """Replaces the adapter by that of a file or folder: a LoRA adapter, or a whole U-Net."""
        ...

    @property
    def networks(self) -> list[nn.Module]:
        """The U-Nets and the decoder."""
        ...

    decode_chunk: int
    """Images decoded at once, where no gradient is needed."""

    @property
    def unet(self) -> nn.Module:
        """The network within `reference`."""
        ...

    @property
    def layout(self) -> Layout:
        """What a feature map must fit."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """The encoded prompts."""
        ...

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (count, C, h, w), drawn on the device of `generator`."""
        ...

    def sample(self, noise_NChw: Tensor, conditions: Conditions) -> Tensor:
        """Clean latents (N, C, h, w) from the noises, for N encoded prompts or one for all; differentiable."""
        ...

    def predict_noise(self, latents_NChw: Tensor, timestep: Tensor | int, conditions: Conditions) -> Tensor:
        """The network's prediction (N, C, h, w) for scaled latents, for N encoded prompts or one for all."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Within this block the adapter is off, so that `sample` computes the frozen base."""
        ...

    def decode_float(self, latents_NChw: Tensor) -> Tensor:
        """Images (N, 3, H, W), roughly in [-1, 1] and not clamped; differentiable."""
        ...

    def decode(self, latents_NChw: Tensor) -> np.ndarray:
        """Images (N, H, W, 3) uint8, without a gradient."""
        ...

    def decode_uint8(self, latents_NChw: Tensor) -> Tensor:
        """The images of `decode` on the generator's device."""
        ...

    def to_uint8(self, images_N3HW: Tensor) -> Tensor:
        """The images of `decode_float` as (N, H, W, 3) uint8 on their device."""
        ...
