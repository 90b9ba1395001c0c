"""The two kinds of feature maps: over latents, and over images.

A feature map phi is frozen and differentiable: gradients flow to its input, but not into its parameters. It returns
{key: (N, T, D)} for N inputs, with T tokens each and D features per token, for example

    {"layer1_mean": (24, 1, 64), "layer2_mean_2": (24, 4, 128)}

Its constructor takes the folder of its weights (or None), `device`, and further settings. It may have a static method
`check` with the same arguments but `device`, which raises a DrpoError if they cannot work. It loads no weights, and is
called before a run starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from drpo.generators.base import Conditions


@dataclass(frozen=True)
class FeatureContext:
    """What a feature map may use besides its inputs, such as a seed if it draws noise.

    Attributes:
        conditions: the encoded prompt of the inputs.
        step_seed: the same for every call of an optimizer step.
        call_seed: another one for every call, but the same if a call is repeated for its gradient.
    """

    conditions: Conditions
    step_seed: int = 0
    call_seed: int = 0


@runtime_checkable
class LatentFeatureMap(Protocol):
    """A feature map over latents."""

    def of_latents(self, latents_NChw: Tensor, context: FeatureContext) -> dict[str, Tensor]:
        """The features of VAE latents (N, C, h, w), scaled as for the U-Net."""
        ...


@runtime_checkable
class ImageFeatureMap(Protocol):
    """A feature map over decoded images."""

    def of_images(self, images_N3HW: Tensor, context: FeatureContext) -> dict[str, Tensor]:
        """The features of images (N, 3, H, W), roughly in [-1, 1] and not clamped."""
        ...


FeatureMap = LatentFeatureMap | ImageFeatureMap
