"""Generate and score the images of a fixed set of shots."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drpo.data.prompts.record import PromptRecord
from drpo.data.seeds import derive_seed
from drpo.errors import EvaluationError
from drpo.evaluation.result import EvaluationResult, ScoredImage, Shot
from drpo_rewards import RankResponse
from drpo_rewards.client import RankingClient

Progress = Callable[[int, int], None]
"""Called with (images scored, images in all)."""

_REQUESTS_AT_A_TIME = 4


def plan(
    records: Sequence[PromptRecord],
    *,
    images_per_prompt: int = 2,
    prompts_per_task: int | None = None,
    seed: int = 0,
    examples_per_task: int = 8,
) -> list[Shot]:
    """Chooses prompts and noise seeds.

    A task's prompts come in an order drawn from the seed, the task and the prompt alone, and so does the noise of image
    0, 1, ... of a prompt. More images, more prompts or another task change none of those that were there before.

    Args:
        records: prompts with their tasks; a prompt that appears twice in a task counts once.
        images_per_prompt: images of each prompt.
        prompts_per_task: the first so many of each task's order; None: all of them.
        seed: another seed is another evaluation set.
        examples_per_task: prompts of each task whose first picture is kept, the first ones in order.
    """
    if not records:
        raise EvaluationError("there are no prompts to evaluate on")
    by_task: dict[str, dict[str, PromptRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, {}).setdefault(record.prompt, record)
    shots = []
    for task, prompts in by_task.items():
        ordered = sorted(prompts, key=lambda prompt: derive_seed(seed, "order", task, prompt))
        for place, prompt in enumerate(ordered[:prompts_per_task]):
            for number in range(images_per_prompt):
                noise_seed = derive_seed(seed, "noise", task, prompt, number)
                shots.append(Shot(prompts[prompt], number, noise_seed, number == 0 and place < examples_per_task))
    return shots


def evaluate(
    generator: Any,
    client: RankingClient,
    shots: Sequence[Shot],
    *,
    reward: str | None = None,
    rewards: Mapping[str, float] | None = None,
    mixture: str | None = None,
    batch_size: int = 24,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Generates the shots and scores them over the ranking API, generation and scoring side by side.

    Args:
        generator: a one-step generator as it stands: adapter on, or off inside `generator.reference()`.
        client: the service. Its retries deal with passing faults; a group that it gives up on ends the evaluation.
        shots: see `plan`; the shots of one prompt must follow each other.
        reward: the reward that is shown; None: the first one that answers.
        rewards, mixture: what the service is asked for; neither: its default mixture.
        batch_size: images generated at a time, of as many prompts as fit.

    Returns:
        Scores in the order of the shots: the strict score in percent where the reward's details have one, else its raw
        number.

    Raises:
        EvaluationError: no shots, or the service has no score of `reward`.
        drpo_rewards.errors.RewardsError: a group could not be scored. No score is made up for it.
    """
    if not shots:
        raise EvaluationError("there is nothing to evaluate: the plan has no shots")
    started = time.perf_counter()
    asked: dict[str, Any] = {"rewards": dict(rewards) if rewards else None, "mixture": mixture}
    if reward is not None and not rewards and mixture is None:
        asked["rewards"] = {reward: 1.0}

    def score(group: Sequence[Shot], images_KHWC: NDArray[np.uint8]) -> list[ScoredImage]:
        # A ranking needs two images. A lone one is sent twice and its second score dropped: raw scores know no group.
        sent_KHWC = images_KHWC if len(group) > 1 else np.repeat(images_KHWC, 2, axis=0)
        record = group[0].record
        metadata = dict(record.metadata) if record.metadata is not None else None
        response = client.rank(record.prompt, sent_KHWC, metadata=metadata, details=True, **asked)
        return [_scored(shot, index, images_KHWC[index], response, reward) for index, shot in enumerate(group)]

    scored: list[ScoredImage] = []
    waiting: list[Future[list[ScoredImage]]] = []
    with ThreadPoolExecutor(_REQUESTS_AT_A_TIME, thread_name_prefix="scoring") as pool:
        try:
            for batch in _batches(shots, batch_size):
                images_NHWC = _generate(generator, [shot for group in batch for shot in group])
                start = 0
                for group in batch:
                    waiting.append(pool.submit(score, group, images_NHWC[start : start + len(group)]))
                    start += len(group)
                while waiting and waiting[0].done():
                    scored += waiting.pop(0).result()
                if progress is not None:
                    progress(len(scored), len(shots))
            while waiting:
                scored += waiting.pop(0).result()
                if progress is not None:
                    progress(len(scored), len(shots))
        finally:
            for future in waiting:  # only after an error
                future.cancel()
    name, _, percentage = _shown(scored[0].rewards, reward)
    return EvaluationResult(name, percentage, scored, time.perf_counter() - started)


@torch.no_grad()
def _generate(generator: Any, shots: Sequence[Shot]) -> NDArray[np.uint8]:
    """Images (N, H, W, 3). Each noise comes from its own seed, on the CPU: neither batch nor device changes it."""
    noise_NChw = torch.cat([generator.noise(1, torch.Generator().manual_seed(shot.seed)) for shot in shots])
    text_NTD = generator.encode_prompts([shot.record.prompt for shot in shots])
    return generator.decode(generator.sample(noise_NChw, text_NTD))


def _batches(shots: Sequence[Shot], size: int) -> Iterator[list[list[Shot]]]:
    """Batches of at most `size` shots; each is a list of groups, and a group holds shots of one prompt."""
    groups: list[list[Shot]] = []
    for shot in shots:
        if groups and groups[-1][0].record == shot.record:
            groups[-1].append(shot)
        else:
            groups.append([shot])
    batch: list[list[Shot]] = []
    for group in groups:
        # A prompt with more images than a batch holds is asked about in several requests.
        for piece in (group[start : start + size] for start in range(0, len(group), size)):
            if batch and sum(map(len, batch)) + len(piece) > size:
                yield batch
                batch = []
            batch.append(piece)
    if batch:
        yield batch


def _scored(
    shot: Shot, index: int, image_HWC: NDArray[np.uint8], response: RankResponse, reward: str | None
) -> ScoredImage:
    raw: dict[str, float] = {}
    reasons: tuple[str, ...] = ()
    for name, result in response.rewards.items():
        raw[name] = result.scores[index]
        details = (result.details[index] if result.details else None) or {}
        if "strict" in details:
            raw[f"{name}/strict"] = float(details["strict"])
            reasons = tuple(str(reason) for reason in details.get("reasons", ()))
    _, score, _ = _shown(raw, reward)
    return ScoredImage(shot, score, raw, reasons, image_HWC if shot.example else None)


def _shown(raw: Mapping[str, float], reward: str | None) -> tuple[str, float, bool]:
    """The shown metric's name, one image's value of it, and whether it is a percentage."""
    if reward is not None and reward not in raw:
        names = ", ".join(name for name in raw if not name.endswith("/strict"))
        raise EvaluationError(f"evaluation.reward: the service gave no scores of {reward!r}, only of {names}")
    name = reward if reward is not None else next(iter(raw))
    if f"{name}/strict" in raw:
        return f"{name}/strict", 100.0 * raw[f"{name}/strict"], True
    return name, raw[name], False
