"""Measurement of a reward's images per second, and of the time for decoding, preparation and the model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from drpo_rewards.api.images import decode
from drpo_rewards.rewards.base import Reward, ScoreItem, StagedReward
from drpo_rewards.rewards.checks import check_scores, describe

WARM_UP = 1  # first batches, which are not counted because they allocate memory


@dataclass(frozen=True)
class Throughput:
    """The measurement of one batch size.

    Attributes:
        batch_size: images in a batch.
        batches: how many batches were scored.
        images_per_s: without decoding, and with the next batch prepared while one is scored, as in a service.
        decode_ms: milliseconds to decode one image.
        prepare_ms: milliseconds to prepare one image; 0 for a reward that is not a StagedReward.
        model_ms: milliseconds to score one image, after preparation.
        gpu_gb: torch's peak GPU memory, in 10^9 bytes; None without a GPU.
    """

    batch_size: int
    batches: int
    images_per_s: float
    decode_ms: float
    prepare_ms: float
    model_ms: float
    gpu_gb: float | None


def measure(
    name: str,
    reward: Reward,
    files: Sequence[bytes],
    prompt: str,
    metadata: dict[str, Any] | None,
    batch_size: int,
    seconds: float,
) -> Throughput:
    """Score batches of images until `seconds` have passed.

    Args:
        name: the reward's name, for errors.
        reward: the reward.
        files: encoded images, which are scored in turn.
        prompt: the prompt of every image.
        metadata: the metadata of every image.
        batch_size: images in a batch.
        seconds: the least time to measure for.

    Raises:
        Exception: whatever the reward raises.
    """
    pictures, decode_s = _time(_decode_all, files)
    turns = itertools.cycle(ScoreItem(picture, prompt, metadata) for picture in pictures)

    def prepare() -> tuple[list[ScoreItem], Any, float]:
        items = [next(turns) for _ in range(batch_size)]
        if not isinstance(reward, StagedReward):
            return items, None, 0.0
        return items, *_time(reward.prepare, items)

    def score(items: list[ScoreItem], prepared: Any) -> list[Any]:
        return reward.score_prepared(prepared) if isinstance(reward, StagedReward) else reward.score(items)

    metrics = describe(name, reward).metrics
    _reset_gpu_peak()
    batches, prepare_s, model_s, started = -WARM_UP, 0.0, 0.0, time.perf_counter()
    with ThreadPoolExecutor(1) as preparing:
        next_batch = preparing.submit(prepare)
        while batches < 1 or time.perf_counter() - started < seconds:
            items, prepared, batch_prepare_s = next_batch.result()
            next_batch = preparing.submit(prepare)
            # Scores are Python numbers, so the GPU has finished when they are returned.
            scores, batch_model_s = _time(score, items, prepared)
            check_scores(name, scores, items, metrics=metrics)
            batches, prepare_s, model_s = batches + 1, prepare_s + batch_prepare_s, model_s + batch_model_s
            if batches == 0:
                prepare_s, model_s, started = 0.0, 0.0, time.perf_counter()
        elapsed_s = time.perf_counter() - started
    images = batches * batch_size
    return Throughput(
        batch_size=batch_size,
        batches=batches,
        images_per_s=images / elapsed_s,
        decode_ms=decode_s * 1e3 / len(files),
        prepare_ms=prepare_s * 1e3 / images,
        model_ms=model_s * 1e3 / images,
        gpu_gb=_gpu_peak_gb(),
    )


def _decode_all(files: Sequence[bytes]) -> list[np.ndarray]:
    return [decode(file) for file in files]


def _time(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Return what `work` returns, and the seconds that it took."""
    started = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - started


def _reset_gpu_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _gpu_peak_gb() -> float | None:
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
