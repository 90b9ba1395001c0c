"""Generate the planned images, and have the ranking service score them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drpo.errors import EvaluationError
from drpo.evaluation.metric import Declarations, ShownMetric, choose_metric
from drpo.evaluation.plan import PlannedImage
from drpo.evaluation.result import EvaluationResult, ScoredImage
from drpo.generators.base import OneStepGenerator
from drpo_rewards import RankResponse
from drpo_rewards.client import RankingClient

Progress = Callable[[int, int], None]
"""Called with (images scored, images in all)."""

_CONCURRENT_REQUESTS = 4


def evaluate(
    generator: OneStepGenerator,
    client: RankingClient,
    planned: Sequence[PlannedImage],
    *,
    reward: str | None = None,
    metric: str | None = None,
    rewards: Mapping[str, float] | None = None,
    mixture: str | None = None,
    batch_size: int = 24,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Generates the planned images and has them scored over the ranking API, both at the same time.

    Args:
        generator: a one-step generator as it is: with its adapter on, or off inside `generator.reference()`.
        client: of the ranking service. It retries after failures that may pass; if it gives up on a group, the
            evaluation ends.
        planned: see `plan_images`; the images of one prompt must follow each other.
        reward, metric: the number that is shown; see `choose_metric`.
        rewards, mixture: what the service shall score with; None for both: its default mixture.
        batch_size: images generated at once, of as many prompts as fit.

    Returns:
        The scores, in the order of the plan.

    Raises:
        EvaluationError: nothing is planned, or the service has no `reward` or no such `metric`.
        drpo_rewards.errors.RewardsError: a group could not be scored.
    """
    if not planned:
        raise EvaluationError("there is nothing to evaluate: the plan has no images")
    started = time.perf_counter()
    asked: dict[str, Any] = {"rewards": dict(rewards) if rewards else None, "mixture": mixture}
    if reward is not None and not rewards and mixture is None:
        asked["rewards"] = {reward: 1.0}
    declared: Declarations = {model.name: model for model in client.models() if model.kind == "reward"}

    def score(group: Sequence[PlannedImage], images_KHWC: NDArray[np.uint8]) -> tuple[ShownMetric, list[ScoredImage]]:
        # A ranking needs two images. A single one is sent twice, and its second score is dropped: raw scores do not
        # depend on the group.
        sent_KHWC = images_KHWC if len(group) > 1 else np.repeat(images_KHWC, 2, axis=0)
        record = group[0].record
        metadata = dict(record.metadata) if record.metadata is not None else None
        response = client.rank(record.prompt, sent_KHWC, metadata=metadata, details=True, **asked)
        shown = choose_metric(response, declared, reward, metric)
        return shown, [_scored(one, i, images_KHWC[i], response, shown) for i, one in enumerate(group)]

    scored: list[ScoredImage] = []
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
                images_NHWC = _generate(generator, [one for group in batch for one in group])
                start = 0
                for group in batch:
                    waiting.append(pool.submit(score, group, images_NHWC[start : start + len(group)]))
                    start += len(group)
                while waiting and waiting[0].done():
                    shown = collect_first()
                report()
            while waiting:
                shown = collect_first()
                report()
        finally:
            for future in waiting:  # only after an error
                future.cancel()
    return EvaluationResult(shown, scored, time.perf_counter() - started)


@torch.no_grad()
def _generate(generator: OneStepGenerator, planned: Sequence[PlannedImage]) -> NDArray[np.uint8]:
    """Images (N, H, W, 3). Each noise has its own seed and is drawn on the CPU, so it depends on no batch or device."""
    noise_NChw = torch.cat([generator.noise(1, torch.Generator().manual_seed(one.seed)) for one in planned])
    text_NTD = generator.encode_prompts([one.record.prompt for one in planned])
    return generator.decode(generator.sample(noise_NChw, text_NTD))


def _batches(planned: Sequence[PlannedImage], size: int) -> Iterator[list[list[PlannedImage]]]:
    """Batches of at most `size` images; each is a list of groups, and a group holds images of one prompt."""
    groups: list[list[PlannedImage]] = []
    for one in planned:
        if groups and groups[-1][0].record == one.record:
            groups[-1].append(one)
        else:
            groups.append([one])
    batch: list[list[PlannedImage]] = []
    for group in groups:
        # A prompt with more images than a batch holds is sent in several requests.
        for piece in (group[start : start + size] for start in range(0, len(group), size)):
            if batch and sum(map(len, batch)) + len(piece) > size:
                yield batch
                batch = []
            batch.append(piece)
    if batch:
        yield batch


def _scored(
    planned: PlannedImage, index: int, image_HWC: NDArray[np.uint8], response: RankResponse, shown: ShownMetric
) -> ScoredImage:
    """The scores of image `index` of a response."""
    numbers: dict[str, float] = {}
    for name, result in response.rewards.items():
        numbers[name] = result.scores[index]
        for metric, values in (result.metrics or {}).items():
            numbers[f"{name}/{metric}"] = values[index]
    details_K = response.rewards[shown.reward].details
    details = (details_K[index] if details_K else None) or {}
    reasons = tuple(str(reason) for reason in details.get("reasons", ()))
    return ScoredImage(planned, shown.of(numbers), numbers, reasons, image_HWC if planned.example else None)
