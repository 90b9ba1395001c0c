"""The result of an evaluation: a score for each image, and example pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drpo.evaluation.metric import ShownMetric
from drpo.evaluation.plan import PlannedImage


@dataclass(frozen=True)
class ScoredImage:
    """An image with its scores.

    Attributes:
        planned: its prompt and noise seed.
        score: its value under the shown metric, 0 to 100 for a percentage.
        rewards: every reward's raw score and metrics, such as {"geneval": 0.5, "geneval/strict": 0.0}.
        reasons: what the reward found wrong, if it reports reasons.
        picture_HWC: the picture itself, uint8, if it is kept.
    """

    planned: PlannedImage
    score: float
    rewards: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    picture_HWC: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """All scored images of one generator.

    Attributes:
        metric: the metric behind the `score` of an image.
        images: in the order of the plan.
        seconds: the time to generate and score them.
    """

    metric: ShownMetric
    images: Sequence[ScoredImage]
    seconds: float = 0.0

    def task_means(self) -> dict[str, float]:
        """The mean score of each task, in the order of the plan."""
        scores: dict[str, list[float]] = {}
        for image in self.images:
            scores.setdefault(image.planned.record.task, []).append(image.score)
        return {task: float(np.mean(values)) for task, values in scores.items()}

    def mean(self) -> float:
        """The mean over tasks, in which each task counts the same."""
        return float(np.mean(list(self.task_means().values())))
