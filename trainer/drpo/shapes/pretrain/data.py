"""Random training pictures and their prompts."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drpo.shapes.prompts import TASKS, ShapesPrompt, prompts
from drpo.shapes.world import render, sample_scene

_TASK_WEIGHTS = {
    "single_object": 1.0,
    "two_object": 1.5,
    "counting": 1.5,
    "colors": 1.0,
    "position": 2.0,
    "color_attr": 2.5,
}


@cache
def train_prompts() -> list[ShapesPrompt]:
    """The prompts of the train split."""
    return prompts("train")


@cache
def _by_task() -> dict[str, list[int]]:
    return {task: [i for i, record in enumerate(train_prompts()) if record.task == task] for task in TASKS}


def draw_prompts(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws prompts, each task with its weight; (count,) indices into `train_prompts()`."""
    weights = np.array([_TASK_WEIGHTS[task] for task in TASKS])
    tasks = rng.choice(len(TASKS), size=count, p=weights / weights.sum())
    return np.array([rng.choice(_by_task()[TASKS[task]]) for task in tasks])


def draw_pictures(prompts_N: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Draws a picture for each index into `train_prompts()`; (N, 3, 64, 64) float32 in [-1, 1]."""
    records = train_prompts()
    pictures_NHWC = np.stack([render(sample_scene(records[i].metadata, rng), rng) for i in prompts_N])
    return to_tensor(pictures_NHWC)


def to_tensor(pictures_NHWC: NDArray[np.uint8]) -> Tensor:
    """Converts uint8 pictures to (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pictures_NHWC).permute(0, 3, 1, 2).float().div(127.5).sub(1)
