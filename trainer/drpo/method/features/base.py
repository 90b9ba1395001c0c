"""What the drift field asks of a feature map."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor


class FeatureMap(Protocol):
    """A frozen, differentiable map phi from latents or images to one or more named sets of token features.

    `space` says what it wants: "latent" is the scaled VAE latent as the U-Net sees it, (N, C, h, w); "image" is the
    decoded image in [-1, 1], (N, 3, H, W). The result maps a key to (N, T, D): N inputs, T tokens each, D features
    a token. Gradients flow to the input and never into the map's own parameters.
    """

    space: Literal["latent", "image"]

    def __call__(self, x_NCHW: Tensor) -> dict[str, Tensor]: ...
