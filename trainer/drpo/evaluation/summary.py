"""summary.json: the results of a run, for programs and for the report."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from drpo.config import Config
from drpo.errors import EvaluationError
from drpo.training.best import read_best
from drpo.training.checkpoint import checkpoints, step_of
from drpo.training.evaluations import EVALUATIONS_FILE, read_evaluations, why_ended
from drpo.training.files import write_text
from drpo.training.metrics import last_step, read_metrics
from drpo.training.run_folder import CHECKPOINTS, COMPARISON_FILE, METRICS_FILE, SUMMARY_FILE

_PACKAGES = ("drpo", "torch", "diffusers", "transformers", "peft", "ray", "numpy")

_NO_COMPARISON: dict[str, Any] = {"metric": None, "percentage": False, "tasks": {}, "mean": None}

_COMPARISON_KEYS = (
    "metric", "description", "percentage", "higher_is_better", "binary", "tasks", "mean", "parts", "seen_in_training",
    "evaluated_step", "numbers",
)  # fmt: skip


def write_comparison(run_dir: Path, comparison: Mapping[str, Any]) -> None:
    """Writes evaluation.json: a comparison, and "evaluated_step", the step of the adapter that was compared.

    Raises:
        StorageError: it could not be written.
    """
    saved = checkpoints(run_dir / CHECKPOINTS)
    step = {"evaluated_step": step_of(saved[-1])} if saved else {}
    write_text(run_dir / COMPARISON_FILE, json.dumps({**comparison, **step}, indent=2) + "\n")


def write_summary(run_dir: Path, config: Config, *, seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Writes summary.json from the run's metrics and its evaluation.json, and returns it.

    Works at any time: before the run was evaluated, while it still trains, and again later. If evaluation.json is
    missing or damaged, the comparison of an earlier summary is kept.

    Args:
        run_dir: the run's folder.
        config: the run's config.
        seconds: seconds of "startup", "training", "evaluation" and "total". Missing ones are kept from an earlier
            summary of the run. This function adds "by_stage" (sums over the steps, means over the workers).

    Raises:
        StorageError: it could not be written.
    """
    earlier = _read_json(run_dir / SUMMARY_FILE) or {}
    comparison = _read_json(run_dir / COMPARISON_FILE) or earlier
    metrics = read_metrics(run_dir / METRICS_FILE)
    known = {"training": metrics[-1]["time_s"]} if metrics and "time_s" in metrics[-1] else {}
    stages: Counter[str] = Counter()
    for line in metrics:
        stages.update({stage: value for stage, value in line.get("seconds", {}).items() if stage != "total"})
    evaluations = read_evaluations(run_dir / EVALUATIONS_FILE)
    if evaluations:
        stages["evaluate"] = sum(line.get("seconds", 0.0) for line in evaluations)
    summary = {
        "run": run_dir.name,
        "preset": config.preset,
        "seed": config.run.seed,
        "steps": len(metrics),
        "images": int(sum(line.get("images", 0) for line in metrics)),
        "evaluations": len(evaluations),
        "evaluations_failed": sum("error" in line for line in evaluations),
        "stopped": why_ended(evaluations, last_step(metrics)) or None,
        "best": read_best(run_dir),
        **_NO_COMPARISON,
        **{key: comparison[key] for key in _COMPARISON_KEYS if key in comparison},
        "seconds": {**known, **earlier.get("seconds", {}), **(seconds or {}), "by_stage": dict(stages)},
        "versions": installed_versions(),
    }
    write_text(run_dir / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


def check_comparison(run_dir: Path) -> None:
    """Checks the comparison of a run that was evaluated.

    Raises:
        EvaluationError: evaluation.json is damaged.
    """
    path = run_dir / COMPARISON_FILE
    if path.exists() and not (_read_json(path) or {}).get("mean"):
        raise EvaluationError(f"{path} is damaged; evaluate the run again")


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary of a run.

    Raises:
        EvaluationError: the run has none, or it is damaged.
    """
    path = run_dir / SUMMARY_FILE
    if not path.is_file():
        raise EvaluationError(f"{run_dir} has no {SUMMARY_FILE}. Write it with `drpo report {run_dir}`")
    summary = _read_json(path)
    if summary is None or not {"run", "steps", "images"} <= summary.keys():
        raise EvaluationError(f"{path} is damaged. Write it anew with `drpo report {run_dir}`")
    return summary


def _read_json(path: Path) -> dict[str, Any] | None:
    """The results in a JSON file; None if the file is missing or damaged, or holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        _Results.model_validate(values)
    except (OSError, ValueError, RecursionError):
        return None
    return values


class _Row(BaseModel):
    base: float
    tuned: float


class _Results(BaseModel):
    """What every reader of evaluation.json and summary.json relies on."""

    mean: _Row | None = None
    tasks: dict[str, _Row] = {}
    seconds: dict[str, Any] = {}
    evaluated_step: int | None = None


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the packages that may affect the results."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
