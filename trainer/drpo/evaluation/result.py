"""What an evaluation measured: one score an image, and pictures of the first prompts of each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drpo.data.prompts.record import PromptRecord


@dataclass(frozen=True)
class Shot:
    """One image to make: a prompt and the seed of its noise, which depends on the prompt and on nothing else.

    `number` counts the images of one prompt from 0. `example` says whether the picture itself is kept.
    """

    record: PromptRecord
    number: int
    seed: int
    example: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it the same shot in another evaluation."""
        return self.record.task, self.record.prompt, self.seed


@dataclass(frozen=True)
class ScoredImage:
    """A shot's score under the shown metric, every reward's raw score, and why it missed, where the reward says so."""

    shot: Shot
    score: float
    rewards: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    picture_HWC: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """All scored images of one generator.

    `metric` names what `score` is. A percentage metric is strict: each image is right (100) or wrong (0); any other is
    the reward's own number.
    """

    metric: str
    percentage: bool
    images: Sequence[ScoredImage]
    seconds: float = 0.0

    def task_means(self) -> dict[str, float]:
        """Mean score of each task, in the order in which the tasks came."""
        scores: dict[str, list[float]] = {}
        for image in self.images:
            scores.setdefault(image.shot.record.task, []).append(image.score)
        return {task: float(np.mean(values)) for task, values in scores.items()}

    def mean(self) -> float:
        """Mean over tasks, each task counting the same."""
        return float(np.mean(list(self.task_means().values())))
