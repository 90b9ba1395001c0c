"""How colourful the picture is, by Hasler and Süsstrunk's measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles


class Colorfulness:
    """How colourful people find the picture (Hasler and Süsstrunk 2003); without a prompt and without weights.

    It comes from the spread and the mean of two opponent colours. Grey pictures have 0, moderately colourful ones about
    33, and extremely colourful ones over 109.
    """

    metadata_schema: ClassVar = READS_NONE
    version = "colorfulness-1"

    @staticmethod
    def files(**options: object) -> tuple[ModelFiles, ...]:
        return ()

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(_measure(item.image)) for item in items]


def _measure(image_HW3: np.ndarray) -> float:
    red_HW, green_HW, blue_HW = np.moveaxis(image_HW3.astype(np.float64), 2, 0)
    red_green_HW, yellow_blue_HW = red_HW - green_HW, (red_HW + green_HW) / 2 - blue_HW
    spread = np.hypot(red_green_HW.std(), yellow_blue_HW.std())
    return float(spread + 0.3 * np.hypot(red_green_HW.mean(), yellow_blue_HW.mean()))
