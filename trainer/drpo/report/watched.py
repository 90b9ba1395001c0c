"""What the report shows of the evaluations during training: the strip of pictures, and the numbers over the steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from drpo.report.pictures import data_uri
from drpo.training.evaluations import EVALUATIONS_FILE, read_evaluations, why_ended
from drpo.training.metrics import last_step, read_metrics
from drpo.training.run_folder import METRICS_FILE


class Guard(NamedTuple):
    """What a guard metric is called, what it means, and its value for the base, where no run need have started."""

    title: str
    meaning: str
    of_base: float


GUARDS = {
    "guard/diversity": Guard(
        "Diversity",
        "How different the pictures of one prompt are from each other, in the feature map; 1: as different as the "
        "base's. No reward measures it. If it falls while a reward rises, the reward is being over-optimised.",
        of_base=1.0,
    ),
    "guard/distance_to_base": Guard(
        "Distance to the base",
        "How far each picture is from the base's picture of the same noise, in the feature map; 1: as far as two "
        "pictures of the base for one prompt are from each other. It should grow no more than the rewards need.",
        of_base=0.0,
    ),
    "guard/colors": Guard(
        "Colours in use",
        "The effective number of colours of the objects whose prompt names no colour; 1: as many as the base uses. No "
        "prompt asks for fewer, and no reward counts them. If it falls, the run settles on a few.",
        of_base=1.0,
    ),
    "guard/places": Guard(
        "Places in use",
        "The effective number of the nine parts of the picture in which objects lie, where the prompt leaves it open; "
        "1: as many as the base uses.",
        of_base=1.0,
    ),
}
"""The guard metrics."""


@dataclass(frozen=True)
class Moment:
    """A grid of the strip: its step, its picture as a data URI, and the numbers of that step in words."""

    step: int
    source: str
    numbers: str


@dataclass(frozen=True)
class Watched:
    """The evaluations of a run: the lines of evaluations.jsonl that did not fail, the strip, and the grid's prompts."""

    lines: Sequence[dict[str, Any]]
    strip: Sequence[Moment]
    prompts: Sequence[str]
    failed: int
    stopped: str
    guards: Sequence[tuple[str, float, float]]


def read_watched(run_dir: Path, missing: list[str]) -> Watched:
    """Reads the evaluations of a run; what cannot be read is named in `missing`."""
    every = read_evaluations(run_dir / EVALUATIONS_FILE)
    lines = list({line["step"]: line for line in every if isinstance(line.get("present"), dict)}.values())
    strip = []
    for line in lines:
        if not line.get("grid"):
            continue
        try:
            strip.append(Moment(line["step"], data_uri(run_dir / line["grid"]), _describe(line["present"])))
        except Exception as error:  # whatever a picture fails with, the others are shown
            missing.append(f"the pictures of step {line['step']}: {error}")
    failed = sum("error" in line for line in every)
    stopped = why_ended(every, last_step(read_metrics(run_dir / METRICS_FILE)))
    return Watched(lines, strip, _read_prompts(run_dir, missing) if strip else [], failed, stopped, _compare(lines))


def _describe(numbers: Mapping[str, float]) -> str:
    """All numbers of an evaluation in one line."""
    titles = {name: guard.title.lower() for name, guard in GUARDS.items()}
    return ", ".join(f"{titles.get(name, name)} {value:.3g}" for name, value in numbers.items())


def _read_prompts(run_dir: Path, missing: list[str]) -> list[str]:
    try:
        rows = json.loads((run_dir / "samples" / "grid.json").read_text(encoding="utf-8"))
        return [str(row["prompt"]) for row in rows]
    except (OSError, ValueError, LookupError, TypeError) as error:
        missing.append(f"the prompts of the pictures: {error}")
        return []


def _compare(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """The title of each guard metric, its value for the base, and that of the last evaluation."""
    last = lines[-1]["present"] if lines else {}
    return [
        (guard.title, guard.of_base, last[name])
        for name, guard in GUARDS.items()
        if isinstance(last.get(name), int | float)  # not in a damaged line
    ]
