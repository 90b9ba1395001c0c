"""How different the pictures of one prompt are from each other, in the space of a feature map.

A generator that draws the same picture from every noise has a diversity of 0. A reward may rise while it falls, so it
is shown beside every score.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drpo.errors import EvaluationError
from drpo.generators.base import OneStepGenerator
from drpo.generators.encoding import encode_images
from drpo.method.features.base import FeatureContext, FeatureMap, ImageFeatureMap


class PictureFeatures:
    """The features of finished pictures, from whichever model they are.

    A feature map over latents sees what the VAE of `generator` makes of a picture. So pictures of generators with other
    latents are measured in the same space.

    Args:
        feature_map: any feature map.
        generator: the generator that it was loaded for.
        batch_size: pictures per call of the feature map.
    """

    def __init__(self, feature_map: FeatureMap, generator: OneStepGenerator, *, batch_size: int = 24) -> None:
        self._feature_map = feature_map
        self._generator = generator
        self._batch_size = batch_size

    @torch.no_grad()
    def of(self, pictures_NHWC: NDArray[np.uint8], prompt: str = "") -> dict[str, Tensor]:
        """The features {key: (N, T, D)} of pictures of one prompt, on the CPU.

        Pictures of another size than the generator's are scaled to it.
        """
        conditions = self._generator.encode_prompts([prompt])
        parts = []
        for start in range(0, len(pictures_NHWC), self._batch_size):
            batch = np.array(pictures_NHWC[start : start + self._batch_size])
            images_N3HW = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1
            if images_N3HW.shape[2:] != self._generator.image_size:
                images_N3HW = torch.nn.functional.interpolate(
                    images_N3HW, self._generator.image_size, mode="bicubic", antialias=True
                ).clamp(-1, 1)
            parts.append(self._look(images_N3HW, FeatureContext(conditions)))
        return {key: torch.cat([part[key].float().cpu() for part in parts]) for key in parts[0]}

    def _look(self, images_N3HW: Tensor, context: FeatureContext) -> dict[str, Tensor]:
        vae = self._generator.vae
        if isinstance(self._feature_map, ImageFeatureMap):
            return self._feature_map.of_images(images_N3HW.to(vae.device), context)
        return self._feature_map.of_latents(encode_images(vae, images_N3HW).to(vae.dtype), context)


def measure_diversity(features: Mapping[str, Tensor]) -> float:
    """The mean distance of two pictures, over all pairs of the pictures of one prompt.

    The distance of two tokens is the length of their difference, relative to the mean of their own lengths. The
    distance of two pictures is the mean over the tokens of each key, then over keys. So no key counts more because its
    numbers are larger.

    Args:
        features: {key: (N, T, D)} of N pictures.

    Returns:
        From 0, if all pictures are equal, to 2, if all are opposite to each other.

    Raises:
        EvaluationError: there are fewer than two pictures.
    """
    count = len(next(iter(features.values())))
    if count < 2:
        raise EvaluationError("diversity compares the pictures of a prompt: generate at least two for each")
    first_M, second_M = torch.tensor(list(combinations(range(count), 2))).T
    return float(
        measure_distances(
            {key: tokens_NTD[first_M] for key, tokens_NTD in features.items()},
            {key: tokens_NTD[second_M] for key, tokens_NTD in features.items()},
        ).mean()
    )


def measure_distances(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
    """The distance (N,) of each picture from its partner, from 0 to 2; see `measure_diversity`.

    Args:
        first, second: {key: (N, T, D)} of N pictures and of their partners.
    """
    means = []
    for key, tokens_NTD in first.items():
        tokens_NTD, others_NTD = tokens_NTD.double(), second[key].double()
        between_NT = (tokens_NTD - others_NTD).norm(dim=-1)
        size_NT = (tokens_NTD.norm(dim=-1) + others_NTD.norm(dim=-1)) / 2
        means.append(torch.where(size_NT > 0, between_NT / size_NT.clamp(min=1e-300), 0.0).mean(dim=1))
    return torch.stack(means).mean(dim=0)
