"""Read everything that the report shows from a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.config import read_settings_file
from drpo.errors import ConfigError
from drpo.evaluation.summary import read_summary
from drpo.report.pictures import data_uri
from drpo.report.scale import Scale
from drpo.report.watched import Watched, read_watched
from drpo.shapes.embedded import is_embedded
from drpo.training.metrics import read_metrics
from drpo.training.run_folder import ADAPTER, CONFIG_FILE, METRICS_FILE

_TASKS = {
    "single_object": ("One object", "the object is there"),
    "two_object": ("Two objects", "both objects are there"),
    "counting": ("Counting", "exactly as many as the prompt says"),
    "colors": ("Colours", "the object has the colour of the prompt"),
    "position": ("Position", "both objects are there, placed as the prompt says"),
    "color_attr": ("Colour attribution", "both objects are there, each in its own colour"),
}
"""GenEval's tasks: their titles, and when an image is right."""

_STAGES = {
    "generate": "generate candidates",
    "features": "features",
    "reward_gradient": "reward's gradient",
    "rank_wait": "wait for ranking",
    "backward": "loss and gradient",
    "optimizer": "optimizer",
    "evaluate": "evaluation during training",
}


@dataclass(frozen=True)
class Side:
    """One picture of a pair: its data URI, its score, its mark ("hit" or "miss"), and what the reward found wrong."""

    source: str
    score: float
    mark: str
    why: str


@dataclass(frozen=True)
class Pair:
    """The pictures of base and adapter for one prompt and noise."""

    prompt: str
    base: Side
    tuned: Side


@dataclass(frozen=True)
class Task:
    """A task: its title, when an image is right, its scores (None if it was not evaluated), and its pictures."""

    title: str
    rule: str
    row: dict[str, Any] | None
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class TimeShare:
    """A segment of a time bar: its name, its seconds, and its share of the bar in percent."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class NumberRow:
    """A reward or a metric of the comparison, in its own unit: its name, both sides, the change and its interval."""

    name: str
    base: str
    tuned: str
    change: str
    interval: str


@dataclass(frozen=True)
class Content:
    """The values of the report's template."""

    name: str
    summary: dict[str, Any]
    metric: str
    scale: Scale
    tasks: Sequence[Task]
    metrics: Sequence[dict[str, Any]]
    phases: Sequence[TimeShare]
    stages: Sequence[TimeShare]
    ranking_s: float
    config: str
    generator: str
    seen_in_training: int | None
    embedded: bool
    steps_to_do: int | None
    adapter: str
    has_adapter: bool
    whole: bool
    example_prompt: str
    facts: Sequence[tuple[str, str]]
    trained_since: int
    missing: Sequence[str]
    offline: bool
    watched: Watched
    numbers: Sequence[NumberRow]


def read_content(run_dir: Path, *, still_trains: bool = False) -> Content:
    """Reads a run's folder. Only summary.json must exist; the report omits what is missing.

    What exists but cannot be read is named in `missing`. `trained_since` counts the steps after the evaluation.
    `steps_to_do` is None if the run does not train any more.

    Raises:
        EvaluationError: the folder has no summary.json, or it is damaged.
    """
    missing: list[str] = []
    summary = read_summary(run_dir)
    metrics = read_metrics(run_dir / METRICS_FILE)
    text, config = _read_config(run_dir / CONFIG_FILE, missing)
    scale = Scale.of(summary)
    generator = config.get("model", {}).get("generator", "")
    seconds = summary.get("seconds", {})
    tasks = _tasks(run_dir, summary, scale, missing)
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
        phases=_time_shares({name: value for name, value in phases.items() if value}),
        stages=_time_shares({title: by_stage[name] for name, title in _STAGES.items() if by_stage.get(name)}),
        ranking_s=by_stage.get("rank", 0.0),
        config=text,
        generator=generator,
        seen_in_training=summary.get("seen_in_training"),
        embedded=is_embedded(generator),
        steps_to_do=config.get("training", {}).get("steps") if still_trains else None,
        adapter=str(run_dir.resolve() / ADAPTER),
        has_adapter=not still_trains or (run_dir / ADAPTER).is_dir(),
        whole=config.get("lora", {}) is None,
        example_prompt=prompts[0] if prompts else "a photo of a red circle",
        facts=_facts(summary, config, metrics),
        trained_since=summary["steps"] - (summary.get("evaluated_step") or summary["steps"]),
        missing=missing,
        offline=bool(config.get("offline")),
        watched=read_watched(run_dir, missing),
        numbers=_numbers(summary),
    )


def _read_config(path: Path, missing: list[str]) -> tuple[str, dict[str, Any]]:
    """The text of a run's config, and its sections."""
    if not path.exists():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return text, read_settings_file(path, name=CONFIG_FILE)
    except ConfigError as error:
        missing.append(f"facts from the settings: {error}")
        return text, {}


def format_duration(seconds: float) -> str:
    """A duration for readers, such as 3.2 s, 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _metric_title(summary: Mapping[str, Any]) -> str:
    """The title of the shown metric, such as "Metric strict of the reward geneval (GenEval's own score)"."""
    reward, _, metric = (summary.get("metric") or "").partition("/")
    if not metric:
        return f"Reward {reward}"
    description = summary.get("description")
    return f"Metric {metric} of the reward {reward}" + (f" ({description.rstrip('.')})" if description else "")


def _numbers(summary: Mapping[str, Any]) -> list[NumberRow]:
    """A row for every reward and metric of the comparison."""
    rows = []
    for name, row in (summary.get("numbers") or {}).items():
        digits = Scale.of({"tasks": {name: row}}).decimals + 1

        def write(value: float, sign: str = "", digits: int = digits) -> str:
            return f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")

        interval = " to ".join(write(end, "+") for end in row["ci95"]) if row["ci95"] else "\N{EN DASH}"
        rows.append(NumberRow(name, write(row["base"]), write(row["tuned"]), write(row["difference"], "+"), interval))
    return rows


def _tasks(run_dir: Path, summary: Mapping[str, Any], scale: Scale, missing: list[str]) -> list[Task]:
    rows: dict[str, Any] = summary.get("tasks", {})
    pairs = _pairs(run_dir / "samples", scale, missing)
    tasks = []
    for name in dict.fromkeys([*rows, *pairs]):
        title, rule = _TASKS.get(name, (name or "All prompts", ""))
        tasks.append(Task(title, rule if scale.binary else "", rows.get(name), pairs.get(name, [])))
    return tasks


def _pairs(folder: Path, scale: Scale, missing: list[str]) -> dict[str, list[Pair]]:
    """The pictures in a run's samples/, by task."""
    try:
        index = list[Any](json.loads((folder / "index.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        missing.append(f"all pictures: {folder / 'index.json'} is damaged ({error})")
        return {}
    pairs: dict[str, list[Pair]] = {}
    for entry in index:
        try:
            scores = {entry[side]["score"] for side in ("base", "tuned")}
            best_of = max if scale.higher_is_better else min
            best = best_of(scores) if len(scores) == 2 else None
            base, tuned = (_side(folder, entry[side], scale, best) for side in ("base", "tuned"))
            pairs.setdefault(entry["task"], []).append(Pair(entry["prompt"], base, tuned))
        except Exception as error:  # whatever a picture fails with, the others are shown
            missing.append(f"a pair of pictures: {error}")
    return pairs


def _side(folder: Path, entry: Mapping[str, Any], scale: Scale, best: float | None) -> Side:
    """One side of a pair. With a binary metric a hit is a right image, otherwise the better one of the two."""
    right = entry["score"] > 0 if scale.binary else entry["score"] == best
    why = "; ".join(entry.get("reasons", ()))
    return Side(data_uri(folder / entry["file"]), entry["score"], "hit" if right else "miss", why)


def _time_shares(seconds: Mapping[str, float]) -> list[TimeShare]:
    total = sum(seconds.values()) or 1.0
    return [TimeShare(name, value, round(100 * value / total, 2)) for name, value in seconds.items()]


def _facts(
    summary: Mapping[str, Any], config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The tiles below the headline: a number and what it counts."""
    what = "images generated" if config.get("offline") else "images generated and ranked"
    facts = [(f"{summary['steps']:,}", "training steps"), (f"{summary['images']:,}", what)]
    seconds = summary.get("seconds", {})
    if seconds.get("training"):
        facts.append((format_duration(seconds["training"]), "training time"))
    if seconds.get("total"):
        facts.append((format_duration(seconds["total"]), "in total, including start and evaluation"))
    elif metrics and metrics[-1].get("images_per_s"):
        facts.append((f"{metrics[-1]['images_per_s']:.0f}", "images per second"))
    lora = config.get("lora") or {}
    if lora.get("rank") and not lora.get("adapter"):  # one that began with another adapter has its rank
        facts.append((str(lora["rank"]), "rank of the adapter"))
    return facts
