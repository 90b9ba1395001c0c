"""The two kinds of feature maps, over latents and over images, and what each map of the catalogue says about itself.

A feature map phi is frozen and differentiable: gradients flow to its input, but not into its parameters. It returns
{key: (N, T, D)} for N inputs, with T tokens each and D features per token, for example

    {"layer1_mean": (24, 1, 64), "layer2_mean_2": (24, 4, 128)}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import ConfigDict
from torch import Tensor

from drpo.config.section import Section
from drpo.generators.base import Conditions, Layout


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


class FeatureSettings(Section):
    """Base of a feature map's settings, the keys of a preset's section `features.options`."""

    model_config = ConfigDict(frozen=True)


class ListedFeatureMap:
    """Base of the feature maps in the catalogue.

    A constructor takes the source of the weights, unless there are none, then the settings. Those of maps with files
    also take `device` and `dtype`.

    Attributes:
        settings_class: the pydantic model of the settings.
        weights: where its weights come from. "files": a folder, a file, or a hub id; "generator": the generator itself.
    """

    settings_class: ClassVar[type[FeatureSettings]] = FeatureSettings
    weights: ClassVar[Literal["files", "generator", "none"]]

    @classmethod
    def check(cls, settings: Any, path: Path | None, layout: Layout | None) -> None:
        """Checks what can be known before a run starts: settings, files and generator fit. Loads no weights.

        Args:
            settings: of the type `settings_class`.
            path: the files of the weights; None: they are not on this machine, or there are none.
            layout: of the generator; None: it is not known.

        Raises:
            ModelLoadError: a file is missing or damaged.
            ConfigError: a setting does not fit the files, or the map does not fit the generator.
        """


def draw_noise(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Standard normal noise, drawn on the CPU, so that every device gets the same."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random).to(like)
