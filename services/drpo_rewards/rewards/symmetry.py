"""How much the picture looks like its mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles

AXES = {"vertical": 1, "horizontal": 0}  # the axis of the mirror, and the array's axis that it reverses


class Symmetry:
    """One minus the mean difference between the picture and its mirror image; without a prompt and without weights.

    The score is 0 to 1, and 1 for a symmetric picture.

    Args:
        axis: "vertical" compares the left half with the right one; "horizontal" the upper with the lower one.
    """

    metadata_schema: ClassVar = READS_NONE
    range = (0.0, 1.0)

    def __init__(self, axis: Literal["vertical", "horizontal"] = "vertical") -> None:
        if axis not in AXES:
            raise ConfigError(f"symmetry: axis is {axis!r}; write {' or '.join(AXES)}")
        self.axis = AXES[axis]
        self.version = f"symmetry-1/{axis}"

    @staticmethod
    def files(**options: object) -> tuple[ModelFiles, ...]:
        return ()

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(self._compare(item.image / 255)) for item in items]

    def _compare(self, image_HW3: np.ndarray) -> float:
        return float(1 - np.abs(image_HW3 - np.flip(image_HW3, self.axis)).mean())
