"""The fixed pictures of a run: the same prompts from the same noise at every evaluation, as one file for each step.

Rows are prompts, columns are noises. samples/grid.json says which.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from drpo.config import EvaluationConfig
from drpo.data.seeds import derive_seed
from drpo.evaluation.adapter import SAMPLES
from drpo.evaluation.plan import PlannedImage
from drpo.generators.base import OneStepGenerator
from drpo.training.files import storing, write_bytes, write_text

GRID_FILE = "grid.json"


Cell = tuple[str, int]
"""The prompt of a picture, and the seed of its noise."""


@dataclass(frozen=True)
class GridRow:
    """A prompt, and the seeds of its noises."""

    prompt: str
    seeds: tuple[int, ...]

    @property
    def cells(self) -> list[Cell]:
        return [(self.prompt, seed) for seed in self.seeds]


def plan_grid(settings: EvaluationConfig, planned: Sequence[PlannedImage]) -> list[GridRow]:
    """The rows of the grid; an empty list if there is none.

    Where the evaluation has the prompt, its own pictures are shown, so that they cost nothing.
    """
    grid = settings.grid
    if grid is None:
        return []
    evaluated: dict[str, list[int]] = {}
    for image in planned:
        evaluated.setdefault(image.record.prompt, []).append(image.seed)
    prompts = list(grid.prompts) if grid.prompts is not None else _pick(planned, grid.count)
    rows = []
    for prompt in prompts:
        more = [derive_seed(settings.seed, "grid", prompt, number) for number in range(grid.images)]
        rows.append(GridRow(prompt, tuple([*evaluated.get(prompt, []), *more][: grid.images])))
    return rows


def _pick(planned: Sequence[PlannedImage], count: int) -> list[str]:
    """The first prompts of all tasks in turn."""
    by_task: dict[str, dict[str, None]] = {}
    for image in planned:
        by_task.setdefault(image.record.task, {})[image.record.prompt] = None
    longest = max(map(len, by_task.values()), default=0)
    columns = [list(prompts) for prompts in by_task.values()]
    in_turn = [column[row] for row in range(longest) for column in columns if row < len(column)]
    return list(dict.fromkeys(in_turn))[:count]


@torch.no_grad()
def draw(generator: OneStepGenerator, cell: Cell) -> NDArray[np.uint8]:
    """The picture of one cell, (H, W, 3)."""
    prompt, seed = cell
    noise_1Chw = generator.noise(1, torch.Generator().manual_seed(seed))
    return generator.decode(generator.sample(noise_1Chw, generator.encode_prompts([prompt])))[0]


def write_grid(run_dir: Path, step: int, rows: Sequence[GridRow], pictures: Mapping[Cell, NDArray[np.uint8]]) -> str:
    """Writes samples/step-N.png and samples/grid.json, and returns the picture's path within the run's folder.

    Raises:
        StorageError: they could not be written.
    """
    folder = run_dir / SAMPLES
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / GRID_FILE, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    data = io.BytesIO()
    drawn = [np.concatenate([pictures[cell] for cell in row.cells], axis=1) for row in rows]
    Image.fromarray(np.concatenate(drawn)).save(data, "PNG")
    write_bytes(folder / f"step-{step}.png", data.getbuffer())
    return f"{SAMPLES}/step-{step}.png"
