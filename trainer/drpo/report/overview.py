"""What a run is at, in a few words: for the table of `drpo runs`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.config import Config
from drpo.errors import DrpoError
from drpo.evaluation.summary import read_summary
from drpo.report.scale import Scale
from drpo.training.evaluations import EVALUATIONS_FILE, read_evaluations, why_ended
from drpo.training.metrics import last_step, read_metrics
from drpo.training.run_folder import CONFIG_FILE, METRICS_FILE, is_run, read_config
from drpo.training.run_lock import LOCK_FILE, is_being_trained


@dataclass(frozen=True)
class Overview:
    """A run at a glance.

    Attributes:
        name: of its folder.
        state: "training", "evaluated", "trained" (not evaluated), "ended by a guard", "stopped" or "damaged".
        step, steps: the steps done, and those in its settings.
        metric: what the scores are of.
        score, base: the mean score of the adapter and of the base, as text; "" if it was not evaluated.
        seconds: of training.
        started: the date and time of its first settings.
    """

    name: str
    state: str
    step: int = 0
    steps: int = 0
    metric: str = ""
    score: str = ""
    base: str = ""
    seconds: float = 0.0
    started: str = ""


def read_overviews(folder: Path) -> list[Overview]:
    """The runs in a folder, the newest last. One whose settings cannot be read is damaged; its other files tell it."""
    found = [path for path in folder.iterdir() if (path / CONFIG_FILE).is_file()]
    found = [
        path for path in found if is_run(path) or any((path / name).is_file() for name in (METRICS_FILE, LOCK_FILE))
    ]
    return [read_overview(path) for path in sorted(found, key=_started)]


def read_overview(run_dir: Path) -> Overview:
    """What a run is at; its files may be damaged, or half there."""
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(_started(run_dir)))
    try:
        config = read_config(run_dir)
    except DrpoError:
        return Overview(run_dir.name, "damaged", started=started)
    metrics = read_metrics(run_dir / METRICS_FILE)
    step = last_step(metrics)
    seconds = float(metrics[-1].get("time_s", 0.0)) if metrics else 0.0
    try:
        summary = read_summary(run_dir)
    except DrpoError:
        summary = {}
    return Overview(
        run_dir.name,
        _find_state(run_dir, config, summary, step),
        step,
        config.training.steps,
        *_scores(summary),
        seconds=seconds,
        started=started,
    )


def _started(run_dir: Path) -> float:
    first = [path for path in (run_dir / LOCK_FILE, run_dir / CONFIG_FILE) if path.exists()]
    return min((path.stat().st_ctime for path in first), default=0.0)


def _scores(summary: dict[str, Any]) -> tuple[str, str, str]:
    """The metric, and both scores as text."""
    mean = summary.get("mean")
    if not mean:
        return "", "", ""
    scale = Scale.of(summary)
    return summary.get("metric") or "", scale.text(mean["tuned"]), scale.text(mean["base"])


def _find_state(run_dir: Path, config: Config, summary: dict[str, Any], step: int) -> str:
    if is_being_trained(run_dir):
        return "training"
    if why_ended(read_evaluations(run_dir / EVALUATIONS_FILE), step):
        return "ended by a guard"
    if summary.get("mean") and (summary.get("evaluated_step") or step) >= step:
        return "evaluated"
    limit = config.training.max_seconds
    out_of_time = limit is not None and summary.get("seconds", {}).get("training", 0.0) >= limit
    return "trained" if step >= config.training.steps or out_of_time else "stopped"
