"""Score and measure the present weights on the run's evaluation prompts, by all workers together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drpo.config import Config
from drpo.data.prompts import load_prompts
from drpo.errors import EvaluationError
from drpo.evaluation.adapter import scoring_rewards
from drpo.evaluation.evaluate import Batch, evaluate, generate_batch
from drpo.evaluation.plan import plan_images
from drpo.generators.base import OneStepGenerator
from drpo.method.features.base import FeatureMap
from drpo.shapes.variety import add, effective_number
from drpo.training import collective
from drpo.watching.grid import Cell
from drpo.watching.guards import COLORS, DISTANCE, DIVERSITY, PLACES, Guards, Measured, choose_groups
from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.client import RankingClient

Numbers = dict[str, float]
"""Means over tasks, by the names of `drpo.training.evaluations`."""


class Evaluator:
    """Evaluates the weights that the generator has at the moment.

    Args:
        config: the settings of the run.
        generator: see `drpo.generators`.
        feature_map: of the run; None if it has none.
        client: of the ranking service.

    Attributes:
        planned: the images of all workers.
        pictures: those of this worker that the last call of `measure` was to keep.
    """

    def __init__(
        self, config: Config, generator: OneStepGenerator, feature_map: FeatureMap | None, client: RankingClient
    ) -> None:
        settings = config.evaluation
        self.planned = plan_images(
            load_prompts(config.evaluation_prompts(), section="evaluation"),
            images_per_prompt=settings.images_per_prompt,
            prompts_per_task=settings.every_prompts_per_task or settings.prompts_per_task,
            seed=settings.seed,
            examples_per_task=0,
        )
        groups = [list(images) for _, images in groupby(self.planned, key=lambda image: image.record)]
        share = groups[collective.rank() :: collective.world_size()]
        self._mine = [image for group in share for image in group]
        self._config = config
        self._generator = generator
        self._client = client
        mine = set(map(id, self._mine))
        measured = [group for group in choose_groups(self.planned) if id(group[0]) in mine]
        self._guards = Guards(feature_map, measured, of_shapes=config.evaluation_prompts().source == "shapes")
        self._models: list[ModelInfo] = []
        self.pictures: dict[Cell, NDArray[np.uint8]] = {}

    def measure(self, wanted: Container[Cell] = ()) -> Numbers:
        """The numbers of the present weights; every worker must call this.

        Args:
            wanted: the pictures to keep in `pictures`, until the next call.

        Raises:
            EvaluationError: it failed on a worker.
        """
        self.pictures = {}
        scored, guarded = call_together(lambda: self._measure_share(wanted))
        by_name: dict[str, list[tuple[str, float]]] = {}
        for task, numbers in (entry for share in collective.gather(scored) for entry in share):
            for name, value in numbers.items():
                by_name.setdefault(name, []).append((task, value))
        found = {name: mean_over_tasks(values) for name, values in by_name.items()}
        return found | _summarize([one for share in collective.gather(guarded) for one in share])

    def higher_is_better(self, name: str) -> bool:
        """Whether a larger value of one of the numbers is a better one, as the service declares it."""
        if name == DISTANCE:
            return False
        reward, _, metric = name.partition("/")
        for model in self._models:
            if model.kind == "reward" and model.name == reward:
                metrics = {one.name: one for one in model.metrics}
                return metrics.get(metric, model).higher_is_better  # of the metric, or of the reward itself
        return True

    def _measure_share(self, wanted: Container[Cell]) -> tuple[list[tuple[str, Numbers]], list[Measured]]:
        """The numbers of each image of this worker with their tasks, and the guard metrics of its prompts."""
        if not self._mine:
            return [], []
        settings = self._config.evaluation
        self._models = self._models or self._client.models()
        if not self._guards.knows_base:
            guarded = [image for image in self._mine if image.key in self._guards.measured]
            with self._generator.reference():
                for start in range(0, len(guarded), settings.batch_size):
                    batch = generate_batch(self._generator, guarded[start : start + settings.batch_size])
                    self._guards.observe_base(batch)

        def observe(batch: Batch) -> None:
            self._guards.observe(batch)
            for image, picture_HWC in zip(batch.planned, batch.images_NHWC, strict=True):
                if (image.record.prompt, image.seed) in wanted:
                    self.pictures[image.record.prompt, image.seed] = picture_HWC

        result = evaluate(
            self._generator,
            self._client,
            self._mine,
            reward=settings.reward,
            metric=settings.metric,
            **scoring_rewards(self._config),
            batch_size=settings.batch_size,
            observe=observe,
        )
        objects = {one.planned.key: one.objects for one in result.images if one.objects is not None}
        return [(one.planned.record.task, one.rewards) for one in result.images], self._guards.collect(objects)


def call_together(call: Callable[[], Any]) -> Any:
    """Calls a function on every worker, and returns what it returns on this one.

    Raises:
        EvaluationError: it failed on a worker, with whatever error; with the message of the first one, on every worker.
    """
    result, error = None, ""
    try:
        result = call()
    except Exception as caught:  # an evaluation must not end the run, whatever it fails with
        error = f"{type(caught).__name__}: {caught}"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if error := next(filter(None, collective.gather(error)), ""):
        raise EvaluationError(error)
    return result


def mean_over_tasks(values: Iterable[tuple[str, float]]) -> float:
    """The mean over tasks of each task's mean."""
    by_task: dict[str, list[float]] = {}
    for task, value in values:
        by_task.setdefault(task, []).append(value)
    return float(np.mean([np.mean(one) for one in by_task.values()]))


def _summarize(measured: Sequence[Measured]) -> Numbers:
    """The guard metrics; none if no prompt has several images, or if those of the base are all equal."""
    unit = mean_over_tasks((one.task, one.base_diversity) for one in measured) if measured else 0.0
    if unit == 0:
        return {}
    seen, base = add(one.seen for one in measured), add(one.base_seen for one in measured)
    chosen: dict[str, tuple[Counter[Any], Counter[Any]]] = {
        COLORS: (seen.colors, base.colors),
        PLACES: (seen.places, base.places),
    }
    return {
        DIVERSITY: mean_over_tasks((one.task, one.diversity) for one in measured) / unit,
        DISTANCE: mean_over_tasks((one.task, one.distance) for one in measured) / unit,
        **{name: effective_number(one) / effective_number(other) for name, (one, other) in chosen.items() if other},
    }
