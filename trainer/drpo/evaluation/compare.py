"""Compare base and adapter on the same planned images: differences and their confidence intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drpo.errors import EvaluationError
from drpo.evaluation.result import EvaluationResult, ScoredImage

RESAMPLES = 10_000


def compare(
    base: EvaluationResult, tuned: EvaluationResult, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Compares base and adapter on each task, and on the mean over tasks.

    Pairs are images of the same prompt from the same noise. The paired bootstrap resamples prompts, not images, because
    images of one prompt are not independent. The difference of a prompt is the mean over its images.

    Returns:
        "metric" (its name), "description", "percentage", "higher_is_better" (see `ShownMetric`), "binary" (whether each
        image has 0 or 100 percent), "tasks": {task: row}, "mean": row, "numbers": {name: row}, the means of every
        reward and metric in its own unit, and "parts": {part: row} in percent, over the images that have the part. A
        row is for example
        {"base": 41.0, "tuned": 63.5, "difference": 22.5, "ci95": [18.0, 27.1], "images": 120, "prompts": 60}, where
        "images" counts the images of each side, and "ci95" is None if a mean is of a single prompt, because nothing
        then says how much prompts differ.

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
    by_task = _pair(base, tuned, lambda image: image.score)
    images_of = Counter(image.planned.record.task for image in base.images)
    tasks = {task: _row([means_P2], images_of[task], resamples, seed) for task, means_P2 in by_task.items()}
    mean = _row(list(by_task.values()), len(base.images), resamples, seed)
    metric, scores = base.metric, {image.score for side in (base, tuned) for image in side.images}
    return {
        "metric": metric.name,
        "description": metric.description,
        "percentage": metric.percentage,
        "higher_is_better": metric.higher_is_better,
        "binary": metric.percentage and scores <= {0.0, 100.0},
        "tasks": tasks,
        "mean": mean,
        "numbers": _compare_numbers(base, tuned, resamples, seed),
        "parts": _compare_parts(base, tuned, resamples, seed),
    }


def _compare_numbers(
    base: EvaluationResult, tuned: EvaluationResult, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """A row like "mean" for each number that all images have, in its own unit."""
    images = [*base.images, *tuned.images]
    names = [name for name in images[0].rewards if all(name in image.rewards for image in images)]
    rows = {}
    for name in names:
        by_task = _pair(base, tuned, lambda image: image.rewards[name])  # noqa: B023  # called within this turn
        rows[name] = _row(list(by_task.values()), len(base.images), resamples, seed)
    return rows


def _compare_parts(
    base: EvaluationResult, tuned: EvaluationResult, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """A row for each part of the score, over the images that have it; every prompt counts the same."""
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for before, after in zip(base.images, tuned.images, strict=True):
        for part in before.parts.keys() & after.parts.keys():
            of_prompt = pairs.setdefault(part, {}).setdefault(before.planned.record.prompt, [])
            of_prompt.append((before.parts[part], after.parts[part]))
    rows = {}
    for part, prompts in sorted(pairs.items()):
        means_P2 = np.array([np.mean(one, axis=0) for one in prompts.values()])
        rows[part] = _row([means_P2], sum(map(len, prompts.values())), resamples, seed)
    return rows


def _pair(
    base: EvaluationResult, tuned: EvaluationResult, value: Callable[[ScoredImage], float]
) -> dict[str, NDArray[np.float64]]:
    """For each task, the mean value of each prompt's images on both sides, (P, 2)."""
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for before, after in zip(base.images, tuned.images, strict=True):
        record = before.planned.record
        pairs.setdefault(record.task, {}).setdefault(record.prompt, []).append((value(before), value(after)))
    return {task: np.array([np.mean(one, axis=0) for one in prompts.values()]) for task, prompts in pairs.items()}


def _row(means_by_task: Sequence[NDArray[np.float64]], images: int, resamples: int, seed: int) -> dict[str, Any]:
    """A row of the comparison; `images` counts the images of each side."""
    base, tuned = np.mean([means_P2.mean(axis=0) for means_P2 in means_by_task], axis=0)
    differences = [means_P2[:, 1] - means_P2[:, 0] for means_P2 in means_by_task]
    varies = min(map(len, differences)) > 1
    return {
        "base": float(base),
        "tuned": float(tuned),
        "difference": float(tuned - base),
        "ci95": list(bootstrap_interval(differences, resamples=resamples, seed=seed)) if varies else None,
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
