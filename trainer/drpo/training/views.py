"""Candidates as a feature map sees them: latents, or decoded images. The only code that asks which of the two."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor

from drpo.generators.base import OneStepGenerator
from drpo.method.features.base import FeatureMap, ImageFeatureMap, LatentFeatureMap


class View(Protocol):
    """How candidates become inputs of a feature map, features, and pictures for the rewards.

    `seen_NCHW` are the inputs: latents (N, C, h, w), or images (N, 3, H, W).
    """

    def see(self, latents_NChw: Tensor) -> Tensor:
        """The inputs of the feature map for these latents; differentiable."""
        ...

    def features(self, seen_NCHW: Tensor) -> dict[str, Tensor]:
        """The features {key: (N, T, D)}; differentiable."""
        ...

    def pictures(self, seen_NCHW: Tensor) -> np.ndarray:
        """The same candidates as pictures (N, H, W, 3) uint8, without decoding any of them twice."""
        ...


def view_of(generator: OneStepGenerator, feature_map: FeatureMap) -> View:
    """The view of a generator's candidates that a feature map needs."""
    if isinstance(feature_map, ImageFeatureMap):
        return ImageView(generator, feature_map)
    return LatentView(generator, feature_map)


class LatentView:
    """For feature maps over latents."""

    def __init__(self, generator: OneStepGenerator, feature_map: LatentFeatureMap) -> None:
        self._generator = generator
        self._feature_map = feature_map

    def see(self, latents_NChw: Tensor) -> Tensor:
        return latents_NChw

    def features(self, seen_NCHW: Tensor) -> dict[str, Tensor]:
        return self._feature_map.of_latents(seen_NCHW)

    def pictures(self, seen_NCHW: Tensor) -> np.ndarray:
        return self._generator.decode(seen_NCHW.detach())


class ImageView:
    """For feature maps over images."""

    def __init__(self, generator: OneStepGenerator, feature_map: ImageFeatureMap) -> None:
        self._generator = generator
        self._feature_map = feature_map

    def see(self, latents_NChw: Tensor) -> Tensor:
        return self._generator.decode_float(latents_NChw)

    def features(self, seen_NCHW: Tensor) -> dict[str, Tensor]:
        return self._feature_map.of_images(seen_NCHW)

    def pictures(self, seen_NCHW: Tensor) -> np.ndarray:
        return self._generator.to_uint8(seen_NCHW)
