"""summary.json: what a run came to, for machines and for the report."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from drpo.config import Config
from drpo.errors import EvaluationError
from drpo.training.metrics import read_metrics

SUMMARY_FILE = "summary.json"

_PACKAGES = ("drpo", "torch", "diffusers", "transformers", "peft", "ray", "numpy")


def write_summary(
    run_dir: Path, config: Config, comparison: Mapping[str, Any] | None, *, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Writes summary.json from the run's metrics and the comparison, and returns it.

    Args:
        comparison: of `drpo.evaluation.compare`; None where nothing was evaluated.
        seconds: of "startup", "training", "evaluation" and "total", as far as known. "by_stage" (sums over the steps,
            on the average worker) is added here. What an earlier summary of the run knew, and is not given anew, stays.
    """
    path = run_dir / SUMMARY_FILE
    known = read_summary(run_dir)["seconds"] if path.is_file() else {}
    metrics = read_metrics(run_dir / "metrics.jsonl")
    stages: Counter[str] = Counter()
    for line in metrics:
        stages.update({stage: value for stage, value in line.get("seconds", {}).items() if stage != "total"})
    compared = {"metric": None, "percentage": False, "tasks": {}, "mean": None, **(comparison or {})}
    summary = {
        "run": run_dir.name,
        "preset": config.preset,
        "seed": config.run.seed,
        "steps": len(metrics),
        "images": int(sum(line.get("images", 0) for line in metrics)),
        **compared,
        "seconds": {**known, **seconds, "by_stage": dict(stages)},
        "versions": versions(),
    }
    partial = run_dir / f".partial-{SUMMARY_FILE}"
    partial.write_text(json.dumps(summary, indent=2) + "\n")
    partial.replace(path)
    return summary


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary of a run.

    Raises:
        EvaluationError: it has none.
    """
    path = run_dir / SUMMARY_FILE
    if not path.is_file():
        raise EvaluationError(
            f"{run_dir} has no {SUMMARY_FILE}: it was not evaluated. `drpo eval --adapter {run_dir}` does it"
        )
    return json.loads(path.read_text())


def versions() -> dict[str, str]:
    """Of Python and of the packages that a number may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
