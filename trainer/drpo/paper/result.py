"""What the runs of an experiment came to: means over the seeds, differences from the base, and times of the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from drpo.paper.experiment import WARM_UP_STEPS
from drpo.paper.plan import PaperPlan, PlannedRun
from drpo.training.metrics import read_metrics
from drpo.training.run_folder import METRICS_FILE

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class SeedMean:
    """A number of a row over its seeds.

    Attributes:
        mean: over the seeds.
        low, high: the lowest and the highest seed.
        seeds: how many.
        difference: from the base; None for rows that are not trained.
        ci95: the interval of the difference, from the variance over prompts and that over seeds; conservative, because
            the seeds share their prompts. None if a seed has no interval.
    """

    mean: float
    low: float
    high: float
    seeds: int
    difference: float | None = None
    ci95: tuple[float, float] | None = None

    @property
    def significant(self) -> bool:
        """Whether the interval does not contain 0."""
        return self.ci95 is not None and (self.ci95[0] > 0 or self.ci95[1] < 0)


def row_name(run: PlannedRun, step: int | None = None) -> str:
    """The name of a run's row in the evaluation; with a step, that of one of its checkpoints."""
    return f"{run.row} seed {run.seed}" + (f" step {step}" if step is not None else "")


def join_seeds(cells: Sequence[Mapping[str, Any]]) -> SeedMean:
    """Joins the cells of a row's seeds, as results.json has them."""
    means = np.array([cell["mean"] for cell in cells])
    between = [cell["difference"] for cell in cells if "difference" in cell]
    joined = SeedMean(float(means.mean()), float(means.min()), float(means.max()), len(cells))
    if not between:
        return joined
    values = np.array([one["value"] for one in between])
    difference, ci95 = float(values.mean()), None
    if all(one["ci95"] is not None for one in between):
        errors = np.array([(one["ci95"][1] - one["ci95"][0]) / (2 * _NORMAL_95) for one in between])
        over_seeds = values.var(ddof=1) / len(values) if len(values) > 1 else 0.0
        half = _NORMAL_95 * float(np.sqrt((errors**2).mean() + over_seeds))
        ci95 = (difference - half, difference + half)
    return replace(joined, difference=difference, ci95=ci95)


def join_column(plan: PaperPlan, column: Mapping[str, Any], step: int | None = None) -> dict[str, SeedMean]:
    """The numbers of a column by row: the rows that are not trained, then the trained ones.

    Args:
        plan: the plan.
        column: a column of results.json.
        step: of a curve's point; None: of the finished runs.
    """
    cells = column["cells"]
    rows = {
        name: join_seeds([cells[name]]) for name in (row.partition("=")[0] for row in plan.spec.rows) if name in cells
    }
    for row in plan.spec.runs:
        names = [row_name(run, step) for run in plan.runs() if run.row == row]
        found = [cells[name] for name in names if name in cells]
        if found:
            rows[row] = join_seeds(found)
    return rows


def mean_step_seconds(plan: PaperPlan) -> dict[str, dict[str, float]]:
    """The mean seconds of a step and of its stages, by row, over all seeds; the first step is left out."""
    rows: dict[str, dict[str, list[float]]] = {}
    for run in plan.runs():
        for line in read_metrics(run.run_dir / METRICS_FILE):
            if line["step"] > WARM_UP_STEPS:
                for stage, seconds in line.get("seconds", {}).items():
                    rows.setdefault(run.row, {}).setdefault(stage, []).append(seconds)
    return {row: {stage: float(np.mean(values)) for stage, values in stages.items()} for row, stages in rows.items()}


def training_hours(plan: PaperPlan) -> float:
    """The hours that all runs have trained."""
    times = [
        max((line.get("time_s", 0.0) for line in read_metrics(run.run_dir / METRICS_FILE)), default=0.0)
        for run in plan.runs()
    ]
    return sum(times) / 3600
