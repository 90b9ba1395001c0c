"""The result of an evaluation: a score for each image, and example pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
        parts: what the reward's details have under "parts", in percent: shares that only some images have, such as one
            for each skill that a prompt tests.
        objects: what GenEval has found in the picture, each with its class, box and colour; None if no reward says so.
    """

    planned: PlannedImage
    score: float
    rewards: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    picture_HWC: NDArray[np.uint8] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    objects: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """All scored images of one generator.

    Attributes:
        metric: the metric behind the `score` of an image.
        images: in the order of the plan.
        seconds: the time to generate and score them.
        diversity: of each prompt with several images, by (task, prompt), if it was measured. Of a prompt with more
            images than a batch, that of its last batch.
    """

    metric: ShownMetric
    images: Sequence[ScoredImage]
    seconds: float = 0.0
    diversity: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def task_means(self) -> dict[str, float]:
        """The mean score of each task, in the order of the plan."""
        scores: dict[str, list[float]] = {}
        for image in self.images:
            scores.setdefault(image.planned.record.task, []).append(image.score)
        return {task: float(np.mean(values)) for task, values in scores.items()}

    def mean(self) -> float:
        """The mean over tasks, in which each task counts the same."""
        return float(np.mean(list(self.task_means().values())))

    def number_means(self) -> dict[str, float]:
        """The mean over tasks of every number of the images, such as {"geneval": 0.5, "geneval/strict": 0.4}.

        Also "diversity", if it was measured. No number is turned into a percentage.
        """
        numbers: dict[str, dict[str, list[float]]] = {}
        for image in self.images:
            for name, value in image.rewards.items():
                numbers.setdefault(name, {}).setdefault(image.planned.record.task, []).append(value)
        for (task, _), value in self.diversity.items():
            numbers.setdefault("diversity", {}).setdefault(task, []).append(value)
        return {name: float(np.mean([np.mean(one) for one in tasks.values()])) for name, tasks in numbers.items()}
