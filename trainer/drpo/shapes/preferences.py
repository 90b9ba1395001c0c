"""A preference set of the world: for each prompt right pictures, which are chosen, and careless ones, the rejected.

The careless picture is drawn like the right one, with the same random numbers, but one fact is wrong.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
from PIL import Image

from drpo.shapes.mistakes import change_one_fact
from drpo.shapes.prompts import TASKS, ShapesPrompt, prompts
from drpo.shapes.world import render, sample_scene

TABLE = "preferences.jsonl"


def write_preferences(out: Path, *, prompts_per_task: int, pairs: int, seed: int) -> Path:
    """Draws a preference set, for training prompts only.

    Args:
        out: the folder; it gets images/ and the table preferences.jsonl, a source of `offline`.
        prompts_per_task: prompts of each of the six tasks, or all if a task has fewer.
        pairs: chosen pictures of each prompt, and also rejected ones.
        seed: which prompts and scenes.

    Returns:
        The table.
    """
    rng = np.random.default_rng(seed)
    chosen_prompts: list[ShapesPrompt] = []
    for task in TASKS:
        records = prompts("train", task)
        drawn = rng.choice(len(records), size=min(prompts_per_task, len(records)), replace=False)
        chosen_prompts += [records[index] for index in drawn]
    (out / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, record in enumerate(chosen_prompts):
        files: dict[str, list[str]] = {"chosen": [], "rejected": []}
        for pair in range(pairs):
            for side, metadata in (("chosen", record.metadata), ("rejected", make_careless(record, rng))):
                name = f"images/{number:05d}-{pair}-{side}.png"
                draw = np.random.default_rng([seed, number, pair])
                Image.fromarray(render(sample_scene(metadata, draw), draw)).save(out / name)
                files[side].append(name)
        lines.append(json.dumps({"prompt": record.prompt, **files}))
    table = out / TABLE
    table.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return table


def make_careless(record: ShapesPrompt, rng: np.random.Generator) -> dict:
    """The specification of a prompt with one fact wrong."""
    metadata = copy.deepcopy(record.metadata)

    def other_name(names: tuple[str, ...], name: str) -> str:
        return str(rng.choice([other for other in names if other != name]))

    change_one_fact(record.task, metadata["include"], more=bool(rng.integers(2)), other_name=other_name)
    return metadata
