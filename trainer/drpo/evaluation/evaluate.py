"""Generate the planned images, and score them with the ranking service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drpo.errors import EvaluationError
from drpo.evaluation.diversity import PictureFeatures, measure_diversity
from drpo.evaluation.metric import Declarations, ShownMetric, choose_metric
from drpo.evaluation.plan import PlannedImage
from drpo.evaluation.result import EvaluationResult, ScoredImage
from drpo.generators.base import Conditions, OneStepGenerator
from drpo_rewards import RankResponse
from drpo_rewards.client import RankingClient

Progress = Callable[[int, int], None]
"""Called with (images scored, all images)."""

_CONCURRENT_REQUESTS = 4


@dataclass(frozen=True)
class Batch:
    """Images that were generated at once, for several prompts.

    Attributes:
        planned: what was planned, one entry per image.
        conditions: the encoded prompts.
        latents_NChw: as the generator made them.
        images_NHWC: decoded, uint8.
    """

    planned: Sequence[PlannedImage]
    conditions: Conditions
    latents_NChw: Tensor
    images_NHWC: NDArray[np.uint8]


Observer = Callable[[Batch], None]
"""Sees every batch as soon as it is generated, while its scores are still awaited."""


def evaluate(
    generator: OneStepGenerator,
    client: RankingClient,
    planned: Sequence[PlannedImage],
    *,
    reward: str | None = None,
    metric: str | None = None,
    rewards: Mapping[str, float] | None = None,
    mixture: str | None = None,
    features: PictureFeatures | None = None,
    observe: Observer | None = None,
    batch_size: int = 24,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Generates the planned images, and scores them with the ranking service at the same time.

    Args:
        generator: the generator. Its adapter is on, but off inside `generator.reference()`.
        client: a client of the ranking service. It retries temporary failures; if a group fails anyway, the evaluation
            ends.
        planned: see `plan_images`; the images of one prompt must be adjacent.
        reward, metric: the number to show; see `choose_metric`.
        rewards, mixture: the rewards with which the service scores; None for both: its default mixture. Every image
            gets the scores of all of them, so `rewards` may name any rewards of the service, with any weights.
        features: also measure the diversity of each prompt that has several images; None: do not.
        observe: called with every batch.
        batch_size: images generated at once, for as many prompts as fit.
        progress: called with (images scored so far, all images) as scores arrive.

    Returns:
        The scores, in the order of the plan.

    Raises:
        EvaluationError: nothing is planned, or the service has no `reward` or no such `metric`.
        drpo_rewards.errors.RewardsError: a group could not be scored.
    """
    if not planned:
        raise EvaluationError("there is nothing to evaluate: the plan has no images")
    started = time.perf_counter()
    choice: dict[str, Any] = {"rewards": dict(rewards) if rewards else None, "mixture": mixture}
    if reward is not None and not rewards and mixture is None:
        choice["rewards"] = {reward: 1.0}
    declared: Declarations = {model.name: model for model in client.models() if model.kind == "reward"}

    def score(group: Sequence[PlannedImage], images_KHWC: NDArray[np.uint8]) -> tuple[ShownMetric, list[ScoredImage]]:
        # A ranking needs two images. A single image is sent twice, and its second score is dropped. This is correct,
        # because raw scores do not depend on the group.
        sent_KHWC = images_KHWC if len(group) > 1 else np.repeat(images_KHWC, 2, axis=0)
        record = group[0].record
        metadata = dict(record.metadata) if record.metadata is not None else None
        response = client.rank(record.prompt, sent_KHWC, metadata=metadata, details=True, **choice)
        shown = choose_metric(response, declared, reward, metric)
        return shown, [_scored_image(image, i, images_KHWC[i], response, shown) for i, image in enumerate(group)]

    scored: list[ScoredImage] = []
    diversity: dict[tuple[str, str], float] = {}
    waiting: list[Future[tuple[ShownMetric, list[ScoredImage]]]] = []

    def collect_first() -> ShownMetric:
        shown, images = waiting.pop(0).result()
        scored.extend(images)
        return shown

    def report() -> None:
        if progress is not None:
            progress(len(scored), len(planned))

    with ThreadPoolExecutor(_CONCURRENT_REQUESTS, thread_name_prefix="scoring") as pool:
        try:
            for batch in _batches(planned, batch_size):
                generated = generate_batch(generator, [image for group in batch for image in group])
                images_NHWC = generated.images_NHWC
                start = 0
                for group in batch:
                    waiting.append(pool.submit(score, group, images_NHWC[start : start + len(group)]))
                    start += len(group)
                if observe is not None:
                    observe(generated)
                if features is not None:
                    diversity |= _measure(features, batch, images_NHWC)
                while waiting and waiting[0].done():
                    shown = collect_first()
                report()
            while waiting:
                shown = collect_first()
                report()
        finally:
            for future in waiting:  # only after an error
                future.cancel()
    return EvaluationResult(shown, scored, time.perf_counter() - started, diversity)


def _measure(
    features: PictureFeatures, batch: Sequence[Sequence[PlannedImage]], images_NHWC: NDArray[np.uint8]
) -> dict[tuple[str, str], float]:
    """The diversity of each prompt of a batch with several images, by task and prompt."""
    measured, start = {}, 0
    for group in batch:
        if len(group) > 1:
            record = group[0].record
            found = features.of(images_NHWC[start : start + len(group)], record.prompt)
            measured[record.task, record.prompt] = measure_diversity(found)
        start += len(group)
    return measured


def generate(generator: OneStepGenerator, planned: Sequence[PlannedImage]) -> NDArray[np.uint8]:
    """Images (N, H, W, 3) of a batch; see `generate_batch`."""
    return generate_batch(generator, planned).images_NHWC


@torch.no_grad()
def generate_batch(generator: OneStepGenerator, planned: Sequence[PlannedImage]) -> Batch:
    """Generates a batch. Each noise has its own seed and is drawn on the CPU: no batch or device changes it."""
    noise_NChw = torch.cat([generator.noise(1, torch.Generator().manual_seed(image.seed)) for image in planned])
    conditions = generator.encode_prompts([image.record.prompt for image in planned])
    latents_NChw = generator.sample(noise_NChw, conditions)
    return Batch(planned, conditions, latents_NChw, generator.decode(latents_NChw))


def _batches(planned: Sequence[PlannedImage], size: int) -> Iterator[list[list[PlannedImage]]]:
    """Batches of at most `size` images. A batch is a list of groups, and a group is a list of images of one prompt."""
    groups: list[list[PlannedImage]] = []
    for image in planned:
        if groups and groups[-1][0].record == image.record:
            groups[-1].append(image)
        else:
            groups.append([image])
    batch: list[list[PlannedImage]] = []
    for group in groups:
        # If a prompt has more images than a batch holds, they are sent in several requests.
        for piece in (group[start : start + size] for start in range(0, len(group), size)):
            if batch and sum(map(len, batch)) + len(piece) > size:
                yield batch
                batch = []
            batch.append(piece)
    if batch:
        yield batch


def _scored_image(
    planned: PlannedImage, index: int, image_HWC: NDArray[np.uint8], response: RankResponse, shown: ShownMetric
) -> ScoredImage:
    """A planned image with its scores: those of image `index` of a response."""
    numbers: dict[str, float] = {}
    for name, result in response.rewards.items():
        numbers[name] = result.scores[index]
        for metric, values in (result.metrics or {}).items():
            numbers[f"{name}/{metric}"] = values[index]
    details_K = response.rewards[shown.reward].details
    details = (details_K[index] if details_K else None) or {}
    reasons = tuple(str(reason) for reason in details.get("reasons", ()))
    parts = details.get("parts")
    shares = (
        {name: 100 * value for name, value in parts.items() if isinstance(value, int | float)}
        if isinstance(parts, dict)
        else {}
    )
    picture_HWC = image_HWC if planned.example else None
    found = (_objects(result.details, index) for result in response.rewards.values())
    objects = next((one for one in found if one is not None), None)
    return ScoredImage(planned, shown.of(numbers), numbers, reasons, picture_HWC, shares, objects)


def _objects(details_K: Sequence[dict[str, Any] | None] | None, index: int) -> list[dict[str, Any]] | None:
    """What a reward has found in image `index`; None if it does not say so, or names the colours of some only."""
    objects = ((details_K[index] if details_K else None) or {}).get("objects")
    whole = isinstance(objects, list) and all(
        isinstance(one, dict) and {"class", "box", "color"} <= one.keys() for one in objects
    )
    return objects if whole else None
