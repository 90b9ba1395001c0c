"""summary.json: the results of a run, for programs and for the report."""

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
from drpo.training.run_folder import METRICS_FILE

SUMMARY_FILE = "summary.json"

_PACKAGES = ("drpo", "torch", "diffusers", "transformers", "peft", "ray", "numpy")


def write_summary(
    run_dir: Path, config: Config, comparison: Mapping[str, Any] | None, *, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Writes summary.json from the run's metrics and the comparison, and returns it.

    Args:
        run_dir: the run's folder.
        config: the run's config.
        comparison: from `drpo.evaluation.compare`; None if nothing was evaluated.
        seconds: seconds of "startup", "training", "evaluation" and "total". Missing ones are kept from an earlier
            summary of the run. This function adds "by_stage" (sums over the steps, means over the workers).
    """
    path = run_dir / SUMMARY_FILE
    earlier = read_summary(run_dir)["seconds"] if path.is_file() else {}
    metrics = read_metrics(run_dir / METRICS_FILE)
    stages: Counter[str] = Counter()
    for line in metrics:
        stages.update({stage: value for stage, value in line.get("seconds", {}).items() if stage != "total"})
    no_comparison: dict[str, Any] = {"metric": None, "percentage": False, "tasks": {}, "mean": None}
    summary = {
        "run": run_dir.name,
        "preset": config.preset,
        "seed": config.run.seed,
        "steps": len(metrics),
        "images": int(sum(line.get("images", 0) for line in metrics)),
        **(comparison or no_comparison),
        "seconds": {**earlier, **seconds, "by_stage": dict(stages)},
        "versions": installed_versions(),
    }
    partial = run_dir / f".partial-{SUMMARY_FILE}"
    partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return summary


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary of a run.

    Raises:
        EvaluationError: the run has none.
    """
    path = run_dir / SUMMARY_FILE
    if not path.is_file():
        raise EvaluationError(
            f"{run_dir} has no {SUMMARY_FILE}: the run was not evaluated. "
            f"Evaluate it with `drpo eval --adapter {run_dir}`"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the packages that may affect the results."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
