"""Where a feature map looks: at latents, or at decoded images. No other code distinguishes the two."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from drpo.generators.base import OneStepGenerator
from drpo.method.features.base import FeatureContext, FeatureMap, ImageFeatureMap, LatentFeatureMap
from drpo.method.objectives.base import Features


class View(Protocol):
    """Turns candidates into images for the rewards, and into features."""

    def look(self, latents_NChw: Tensor, context: FeatureContext) -> tuple[Tensor, Features | None]:
        """Images (N, H, W, 3) uint8 on the candidates' device, and their features if they come from the same images.

        None for the features means that `features` computes them just as cheaply later.
        """
        ...

    def features(self, latents_NChw: Tensor, context: FeatureContext) -> Features:
        """The features {key: (N, T, D)} of candidates; differentiable."""
        ...


def make_view(generator: OneStepGenerator, feature_map: FeatureMap | None, *, decode_again: bool) -> View:
    """The view for a feature map.

    Args:
        generator: see `drpo.generators`.
        feature_map: over latents or over images; None: only images are needed, no features.
        decode_again: see `ImageView`.
    """
    if isinstance(feature_map, ImageFeatureMap):
        return ImageView(generator, feature_map, decode_again=decode_again)
    return LatentView(generator, feature_map)


class LatentView:
    """For feature maps over latents."""

    def __init__(self, generator: OneStepGenerator, feature_map: LatentFeatureMap | None) -> None:
        self._generator = generator
        self._feature_map = feature_map

    def look(self, latents_NChw: Tensor, context: FeatureContext) -> tuple[Tensor, Features | None]:
        return self._generator.decode_uint8(latents_NChw.detach()), None

    def features(self, latents_NChw: Tensor, context: FeatureContext) -> Features:
        assert self._feature_map is not None  # the objective needs no features otherwise
        return self._feature_map.of_latents(latents_NChw, context)


class ImageView:
    """For feature maps over images.

    Args:
        generator: decodes the latents.
        feature_map: sees the images.
        decode_again: keep only the decoded images for the backward pass, and decode each image again there. The graph
            of a decoded image takes about a hundred times its memory.
    """

    def __init__(self, generator: OneStepGenerator, feature_map: ImageFeatureMap, *, decode_again: bool) -> None:
        self._generator = generator
        self._feature_map = feature_map
        self._decode_again = decode_again

    def look(self, latents_NChw: Tensor, context: FeatureContext) -> tuple[Tensor, Features | None]:
        images_N3HW = self._decode(latents_NChw)
        return self._generator.to_uint8(images_N3HW), self._feature_map.of_images(images_N3HW, context)

    def features(self, latents_NChw: Tensor, context: FeatureContext) -> Features:
        return self._feature_map.of_images(self._decode(latents_NChw), context)

    def _decode(self, latents_NChw: Tensor) -> Tensor:
        decode = self._generator.decode_float
        if not (self._decode_again and torch.is_grad_enabled()):
            return decode(latents_NChw)
        images = [checkpoint(decode, latents_1Chw, use_reentrant=False) for latents_1Chw in latents_NChw.split(1)]
        return torch.cat(images)
