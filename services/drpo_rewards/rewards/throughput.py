"""How many images a reward scores in a second, and what the time goes to: files, preparation, the model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from drpo_rewards.api.images import decode
from drpo_rewards.rewards.base import Reward, ScoreItem, StagedReward, check_scores

WARM_UP = 1  # batches that are not counted: the first ones allocate


@dataclass(frozen=True)
class Throughput:
    """One batch size. Times are milliseconds an image; a reward without halves has all of its time in `model_ms`."""

    batch_size: int
    batches: int
    images_per_s: float  # with the next batch prepared while one is scored, as in a service; decoding is elsewhere
    decode_ms: float
    prepare_ms: float
    model_ms: float
    gpu_gb: float | None  # the most that torch held at a time


def measure(
    name: str,
    reward: Reward,
    files: Sequence[bytes],
    prompt: str,
    metadata: dict[str, Any] | None,
    batch_size: int,
    seconds: float,
) -> Throughput:
    """Score batches of the files in turn until `seconds` have passed. Raises what the reward raises."""
    pictures, decode_s = _timed(_decode_all, files)
    turns = itertools.cycle(ScoreItem(picture, prompt, metadata) for picture in pictures)

    def prepare() -> tuple[list[ScoreItem], Any, float]:
        items = [next(turns) for _ in range(batch_size)]
        if not isinstance(reward, StagedReward):
            return items, None, 0.0
        return items, *_timed(reward.prepare, items)

    def score(items: list[ScoreItem], prepared: Any) -> list[Any]:
        return reward.score_prepared(prepared) if isinstance(reward, StagedReward) else reward.score(items)

    _forget_peak()
    batches, prepare_s, model_s, started = -WARM_UP, 0.0, 0.0, time.perf_counter()
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(prepare)
        while batches < 1 or time.perf_counter() - started < seconds:
            items, prepared, preparing_s = coming.result()
            coming = ahead.submit(prepare)
            # scores are numbers of Python, so the GPU has finished when they are there
            scores, scoring_s = _timed(score, items, prepared)
            check_scores(name, scores, items)
            batches, prepare_s, model_s = batches + 1, prepare_s + preparing_s, model_s + scoring_s
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
        gpu_gb=_peak_gb(),
    )


def _decode_all(files: Sequence[bytes]) -> list[np.ndarray]:
    return [decode(file) for file in files]


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - started


def _forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_gb() -> float | None:
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
