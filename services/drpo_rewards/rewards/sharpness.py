"""How sharp the picture is: the variance of its Laplacian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles

LUMA_3 = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)


class Sharpness:
    """The variance of the brightness's Laplacian, a usual measure of focus; without a prompt and without weights.

    It is 0 for an even picture, small for a blurred one, and thousands for noise. The brightness goes from 0 to 255;
    the Laplacian is the sum of a pixel's four neighbours minus four times the pixel, and the border is left out.
    """

    metadata_schema: ClassVar = READS_NONE
    version = "sharpness-1"

    @staticmethod
    def files(**options: object) -> tuple[ModelFiles, ...]:
        return ()

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(_laplacian_variance(item.image)) for item in items]


def _laplacian_variance(image_HW3: np.ndarray) -> float:
    light_HW = np.pad(image_HW3 @ LUMA_3, [(0, max(0, 3 - side)) for side in image_HW3.shape[:2]], mode="edge")
    neighbours_HW = light_HW[:-2, 1:-1] + light_HW[2:, 1:-1] + light_HW[1:-1, :-2] + light_HW[1:-1, 2:]
    return float((neighbours_HW - 4 * light_HW[1:-1, 1:-1]).var())
