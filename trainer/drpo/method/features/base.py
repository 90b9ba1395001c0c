"""What the drift field needs of a feature map: two protocols, one over latents and one over images.

A feature map phi is frozen and differentiable: gradients flow to its input and never into its own parameters. It
returns {key: (N, T, D)}: N inputs, T tokens of each, D features of a token, for example

    {"layer1_mean": (24, 1, 64), "layer2_mean_2": (24, 4, 128)}

Its constructor takes the folder of its weights (or None), `device`, and its own settings.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class LatentFeatureMap(Protocol):
    """A feature map that sees latents, as the U-Net sees them."""

    def of_latents(self, latents_NChw: Tensor) -> dict[str, Tensor]:
        """The features of scaled VAE latents (N, C, h, w)."""
        ...


@runtime_checkable
class ImageFeatureMap(Protocol):
    """A feature map that sees decoded images."""

    def of_images(self, images_N3HW: Tensor) -> dict[str, Tensor]:
        """The features of images (N, 3, H, W), about [-1, 1] and not clamped."""
        ...


FeatureMap = LatentFeatureMap | ImageFeatureMap
