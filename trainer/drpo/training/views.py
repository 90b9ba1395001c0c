"""Candidates as inputs of a feature map: latents, or decoded images. No other code distinguishes the two."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor

from drpo.generators.base import OneStepGenerator
from drpo.method.features.base import FeatureMap, ImageFeatureMap, LatentFeatureMap


class View(Protocol):
    """Turns candidates into inputs of a feature map, and these into features, and into images for the rewards.

    `inputs_NCHW` are latents (N, C, h, w), or images (N, 3, H, W).
    """

    def to_inputs(self, latents_NChw: Tensor) -> Tensor:
        """The inputs of the feature map; differentiable."""
        ...

    def features(self, inputs_NCHW: Tensor) -> dict[str, Tensor]:
        """The features {key: (N, T, D)}; differentiable."""
        ...

    def to_images(self, inputs_NCHW: Tensor) -> np.ndarray:
        """The same candidates as images (N, H, W, 3) uint8. None is decoded twice."""
        ...


def make_view(generator: OneStepGenerator, feature_map: FeatureMap) -> View:
    """The view for this feature map: over latents or over images."""
    if isinstance(feature_map, ImageFeatureMap):
        return ImageView(generator, feature_map)
    return LatentView(generator, feature_map)


class LatentView:
    """For feature maps over latents."""

    def __init__(self, generator: OneStepGenerator, feature_map: LatentFeatureMap) -> None:
        self._generator = generator
        self._feature_map = feature_map

    def to_inputs(self, latents_NChw: Tensor) -> Tensor:
        return latents_NChw

    def features(self, inputs_NCHW: Tensor) -> dict[str, Tensor]:
        return self._feature_map.of_latents(inputs_NCHW)

    def to_images(self, inputs_NCHW: Tensor) -> np.ndarray:
        return self._generator.decode(inputs_NCHW.detach())


class ImageView:
    """For feature maps over images."""

    def __init__(self, generator: OneStepGenerator, feature_map: ImageFeatureMap) -> None:
        self._generator = generator
        self._feature_map = feature_map

    def to_inputs(self, latents_NChw: Tensor) -> Tensor:
        return self._generator.decode_float(latents_NChw)

    def features(self, inputs_NCHW: Tensor) -> dict[str, Tensor]:
        return self._feature_map.of_images(inputs_NCHW)

    def to_images(self, inputs_NCHW: Tensor) -> np.ndarray:
        return self._generator.to_uint8(inputs_NCHW)
