"""Everything that the report shows, read from a run's folder and put into words."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from drpo.evaluation.summary import read_summary
from drpo.training.metrics import read_metrics

LARGEST_PICTURE = 384
"""Pixels on the longer side; larger pictures are scaled down, so that the file can still be mailed."""

_TASKS = {
    "single_object": ("One object", "the object is there"),
    "two_object": ("Two objects", "both objects are there"),
    "counting": ("Counting", "exactly as many as the prompt says"),
    "colors": ("Colours", "the object has the colour of the prompt"),
    "position": ("Position", "both objects are there, placed as the prompt says"),
    "color_attr": ("Colour attribution", "both objects are there, each in its own colour"),
}
"""Titles of GenEval's tasks, and what counts as right."""

_STAGES = {
    "generate": "generate candidates",
    "features": "features",
    "rank_wait": "wait for ranking",
    "backward": "loss and gradient",
    "optimizer": "optimizer",
}


@dataclass(frozen=True)
class Scale:
    """How a score is written, and where it lies on the axis of the table."""

    percentage: bool
    low: float
    high: float
    decimals: int = 1

    def text(self, value: float) -> str:
        """As a percentage, or as a plain number with as many decimals as the axis is fine."""
        number = f"{value:.{self.decimals}f}".replace("-", "\N{MINUS SIGN}")
        return f"{number}\N{NO-BREAK SPACE}%" if self.percentage else number

    def difference(self, value: float) -> str:
        """With its sign; percentages differ by points."""
        return f"{value:+.{self.decimals}f}".replace("-", "\N{MINUS SIGN}")

    def interval(self, low: float, high: float) -> str:
        """Both ends with their signs."""
        return f"{self.difference(low)} to {self.difference(high)}"

    def place(self, value: float) -> float:
        """Percent of the axis, from its left end."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Side:
    """One picture of a pair: its data URI, its mark, and what the reward said against it."""

    source: str
    score: float
    mark: str
    why: str


@dataclass(frozen=True)
class Pair:
    """One prompt and noise, drawn by the base and by the adapter."""

    prompt: str
    base: Side
    tuned: Side


@dataclass(frozen=True)
class Task:
    """A task's title, what counts as right, its scores (None for pictures without an evaluation) and its pictures."""

    title: str
    rule: str
    row: dict[str, Any] | None
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Part:
    """A piece of the time bars."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Content:
    """What the template is filled with."""

    name: str
    summary: dict[str, Any]
    metric: str
    scale: Scale
    tasks: Sequence[Task]
    metrics: Sequence[dict[str, Any]]
    phases: Sequence[Part]
    stages: Sequence[Part]
    ranking_s: float
    config: str
    generator: str
    seen: int | None
    embedded: bool
    example_prompt: str
    facts: Sequence[tuple[str, str]]


def gather(run_dir: Path) -> Content:
    """Reads a run's folder. Only summary.json must be there; what else is missing is left out of the report."""
    summary = read_summary(run_dir)
    metrics = read_metrics(run_dir / "metrics.jsonl")
    config_file = run_dir / "config.yaml"
    text = config_file.read_text() if config_file.exists() else ""
    config = yaml.safe_load(text) or {}
    scale = _scale(summary)
    generator = config.get("model", {}).get("generator", "")
    seconds = summary.get("seconds", {})
    tasks = _tasks(run_dir, summary, scale)
    prompts = [pair.prompt for task in tasks for pair in task.pairs]
    phases = {name: seconds.get(name) for name in ("startup", "training", "evaluation")}
    by_stage = seconds.get("by_stage", {})
    return Content(
        name=summary["run"],
        summary=summary,
        metric=_metric_title(summary),
        scale=scale,
        tasks=tasks,
        metrics=metrics,
        phases=_parts({name: value for name, value in phases.items() if value}),
        stages=_parts({title: by_stage[name] for name, title in _STAGES.items() if by_stage.get(name)}),
        ranking_s=by_stage.get("rank", 0.0),
        config=text,
        generator=generator,
        seen=summary.get("seen_in_training"),
        embedded=generator == "shapes",
        example_prompt=prompts[0] if prompts else "a photo of a red circle",
        facts=_facts(summary, config, metrics),
    )


def duration(seconds: float) -> str:
    """3.2 s, 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _metric_title(summary: Mapping[str, Any]) -> str:
    name = summary.get("metric") or ""
    if not name.endswith("/strict"):
        return f"Reward {name}"
    name = name.removesuffix("/strict")
    return f"Strict {'GenEval' if name == 'geneval' else name} score"


def _scale(summary: Mapping[str, Any]) -> Scale:
    if summary.get("percentage"):
        return Scale(True, 0.0, 100.0)
    values = [row[side] for row in summary.get("tasks", {}).values() for side in ("base", "tuned")] or [0.0, 1.0]
    room = 0.15 * (max(values) - min(values)) or 1.0
    decimals = max(0, 1 - math.floor(math.log10(max(values) - min(values) + room)))
    return Scale(False, min(values) - room, max(values) + room, decimals)


def _tasks(run_dir: Path, summary: Mapping[str, Any], scale: Scale) -> list[Task]:
    rows: dict[str, Any] = summary.get("tasks", {})
    index_file = run_dir / "samples" / "index.json"
    index = json.loads(index_file.read_text()) if index_file.exists() else []
    pairs: dict[str, list[Pair]] = {}
    for entry in index:
        sides = {side: entry[side]["score"] for side in ("base", "tuned")}
        best = max(sides.values()) if sides["base"] != sides["tuned"] else None
        base, tuned = (_side(index_file.parent, entry[side], scale, best) for side in ("base", "tuned"))
        pairs.setdefault(entry["task"], []).append(Pair(entry["prompt"], base, tuned))
    tasks = []
    for name in dict.fromkeys([*rows, *pairs]):
        title, rule = _TASKS.get(name, (name.replace("_", " ").capitalize() or "All prompts", ""))
        tasks.append(Task(title, rule if scale.percentage else "", rows.get(name), pairs.get(name, [])))
    return tasks


def _side(folder: Path, entry: Mapping[str, Any], scale: Scale, best: float | None) -> Side:
    """A hit or a miss where the metric knows both; else the better of two is the hit."""
    right = entry["score"] > 0 if scale.percentage else entry["score"] == best
    why = "; ".join(entry.get("reasons", ()))
    return Side(_data_uri(folder / entry["file"]), entry["score"], "hit" if right else "miss", why)


def _data_uri(file: Path) -> str:
    """The file itself where the picture is small; otherwise a smaller one."""
    with Image.open(file) as picture:
        if max(picture.size) <= LARGEST_PICTURE and file.suffix in (".png", ".webp"):
            data, kind = file.read_bytes(), file.suffix[1:]
        else:
            small = picture.convert("RGB")
            small.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=90)
            data, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _parts(seconds: Mapping[str, float]) -> list[Part]:
    total = sum(seconds.values()) or 1.0
    return [Part(name, value, round(100 * value / total, 2)) for name, value in seconds.items()]


def _facts(
    summary: Mapping[str, Any], config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The tiles below the headline: a number and what it counts."""
    facts = [(f"{summary['steps']:,}", "training steps"), (f"{summary['images']:,}", "images generated and ranked")]
    seconds = summary.get("seconds", {})
    if seconds.get("training"):
        facts.append((duration(seconds["training"]), "training time"))
    if seconds.get("total"):
        facts.append((duration(seconds["total"]), "in all, start and evaluation included"))
    elif metrics and metrics[-1].get("images_per_s"):
        facts.append((f"{metrics[-1]['images_per_s']:.0f}", "images a second"))
    if config.get("lora", {}).get("rank"):
        facts.append((str(config["lora"]["rank"]), "rank of the adapter"))
    return facts
