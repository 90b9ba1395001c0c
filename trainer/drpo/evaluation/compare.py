"""Compare base and adapter on the same planned images: differences and their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drpo.errors import EvaluationError
from drpo.evaluation.result import EvaluationResult

RESAMPLES = 10_000


def compare(
    base: EvaluationResult, tuned: EvaluationResult, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Compares base and adapter on each task, and on the mean over tasks.

    Pairs are images of the same prompt from the same noise. The paired bootstrap resamples prompts, not images, because
    images of one prompt are not independent. The difference of a prompt is the mean over its images.

    Returns:
        "metric" (its name), "description", "percentage", "higher_is_better" (see `ShownMetric`), "binary" (whether each
        image has 0 or 100 percent), "tasks": {task: row}, and "mean": row. A row is for example
        {"base": 41.0, "tuned": 63.5, "difference": 22.5, "ci95": [18.0, 27.1], "images": 120, "prompts": 60}, where
        "images" counts the images of each side.

    Raises:
        EvaluationError: the two have different images or metrics.
    """
    if base.metric != tuned.metric:
        raise EvaluationError(
            f"the base was evaluated by {base.metric.name}, the adapter by {tuned.metric.name}: use the same metric"
        )
    if [image.planned.key for image in base.images] != [image.planned.key for image in tuned.images]:
        raise EvaluationError(
            "base and adapter were evaluated on different prompts or seeds: use the same plan for both"
        )
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for base_image, tuned_image in zip(base.images, tuned.images, strict=True):
        record = base_image.planned.record
        pairs.setdefault(record.task, {}).setdefault(record.prompt, []).append((base_image.score, tuned_image.score))

    tasks, means_by_task = {}, []
    for task, prompts in pairs.items():
        means_P2 = np.array([np.mean(scores, axis=0) for scores in prompts.values()])
        means_by_task.append(means_P2)
        tasks[task] = _row([means_P2], sum(map(len, prompts.values())), resamples, seed)
    mean = _row(means_by_task, len(base.images), resamples, seed)
    metric, scores = base.metric, {image.score for side in (base, tuned) for image in side.images}
    return {
        "metric": metric.name,
        "description": metric.description,
        "percentage": metric.percentage,
        "higher_is_better": metric.higher_is_better,
        "binary": metric.percentage and scores <= {0.0, 100.0},
        "tasks": tasks,
        "mean": mean,
    }


def _row(means_by_task: Sequence[NDArray[np.float64]], images: int, resamples: int, seed: int) -> dict[str, Any]:
    """A row of the comparison; `images` counts the images of each side."""
    base, tuned = np.mean([means_P2.mean(axis=0) for means_P2 in means_by_task], axis=0)
    differences = [means_P2[:, 1] - means_P2[:, 0] for means_P2 in means_by_task]
    low, high = bootstrap_interval(differences, resamples=resamples, seed=seed)
    return {
        "base": float(base),
        "tuned": float(tuned),
        "difference": float(tuned - base),
        "ci95": [low, high],
        "images": images,
        "prompts": sum(map(len, differences)),
    }


def bootstrap_interval(
    differences: Sequence[Sequence[float] | NDArray[np.float64]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over tasks of each task's mean.

    Args:
        differences: for each task, one number per prompt. Prompts are drawn with replacement within their task.
        resamples: number of bootstrap samples.
        seed: the same seed gives the same interval.
        level: the share of the resampled means that lie in the interval.

    Returns:
        (low, high). If every task has a single prompt, both ends are the mean itself.

    Raises:
        EvaluationError: a task has no numbers.
    """
    tail = (1 - level) / 2
    means_R = resample_means(differences, resamples=resamples, seed=seed)
    low, high = np.quantile(means_R, [tail, 1 - tail])
    return float(low), float(high)


def resample_means(
    values: Sequence[Sequence[float] | NDArray[np.float64]], *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """The means over tasks of each task's mean, in which the prompts of each task were drawn anew, with replacement.

    Their standard deviation is the bootstrap's standard error.

    Args:
        values, resamples, seed: see `bootstrap_interval`.

    Raises:
        EvaluationError: a task has no numbers.
    """
    random = np.random.default_rng(seed)
    means_R = np.zeros(resamples)
    for task in values:
        values_P = np.asarray(task, dtype=np.float64)
        if values_P.ndim != 1 or not len(values_P):
            raise EvaluationError(
                f"a bootstrap needs at least one number per task, not an array of shape {values_P.shape}"
            )
        # The mean depends only on how often each prompt was drawn, and these counts are multinomial.
        counts_RP = random.multinomial(len(values_P), np.full(len(values_P), 1 / len(values_P)), size=resamples)
        means_R += counts_RP @ values_P / len(values_P)
    return means_R / len(values)
