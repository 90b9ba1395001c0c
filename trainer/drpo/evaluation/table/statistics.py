"""The cells of a table: means, standard errors, and differences from one row on the same prompts and noises.

Images of a prompt are averaged first, because they are not independent. Then prompts are resampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from drpo.errors import EvaluationError
from drpo.evaluation.compare import bootstrap_interval, resample_means
from drpo.evaluation.table.prompt_set import Mean

Values = Mapping[tuple[str, str], float]
"""A number for each prompt, by (task, prompt)."""


@dataclass(frozen=True)
class Difference:
    """How a row differs from the row that the table compares with.

    Attributes:
        value: the difference of the means.
        ci95: its 95 % interval, from the differences of each prompt; None if a mean is of a single prompt, because
            nothing then says how much prompts differ.
        significant: whether the interval does not contain 0. Nothing is corrected for the number of cells.
    """

    value: float
    ci95: tuple[float, float] | None
    significant: bool


@dataclass(frozen=True)
class Cell:
    """A number of a row.

    Attributes:
        mean: over tasks or over prompts, see `PromptSet.mean`.
        standard_error: of the mean, by the bootstrap over prompts; None for a number of the whole set, such as FID, and
            if a mean is of a single prompt.
        prompts: how many prompts were averaged.
        difference: from the row that the table compares with; None for that row itself.
        tasks: the mean of each task.
        extra: more numbers that belong to this one.
    """

    mean: float
    standard_error: float | None = None
    prompts: int = 0
    difference: Difference | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The cell for results.json; what it does not have is left out."""
        given = {name: value for name, value in asdict(self).items() if value not in (None, {})}
        return given if self.prompts else {name: value for name, value in given.items() if name != "prompts"}


def make_cell(
    values: Values, reference: Values | None, mean: Mean, *, extra: Mapping[str, float] | None = None
) -> Cell:
    """Makes the cell of a row.

    Args:
        values: of the row.
        reference: of the row that the table compares with; None: this is that row.
        mean: what counts the same.
        extra: more numbers that belong to this one.

    Raises:
        EvaluationError: there are no values, or the two are of different prompts.
    """
    if not values:
        raise EvaluationError("there is nothing to average: no prompt has a number")
    if reference is not None and reference.keys() != values.keys():
        raise EvaluationError("two rows have numbers of different prompts: finish the evaluation of both")
    tasks = _by_task(values, "tasks")
    groups = list(_by_task(values, mean).values())
    varies = min(map(len, groups)) > 1
    difference = None
    if reference is not None:
        between = {key: value - reference[key] for key, value in values.items()}
        parts = list(_by_task(between, mean).values())
        ci95 = bootstrap_interval(parts) if varies else None
        value = float(np.mean([np.mean(part) for part in parts]))
        difference = Difference(value, ci95, ci95 is not None and (ci95[0] > 0 or ci95[1] < 0))
    return Cell(
        mean=float(np.mean([np.mean(group) for group in groups])),
        standard_error=float(resample_means(groups).std()) if varies else None,
        prompts=len(values),
        difference=difference,
        tasks={task: float(np.mean(one)) for task, one in tasks.items()} if len(tasks) > 1 else {},
        extra=extra or {},
    )


def _by_task(values: Values, mean: Mean) -> dict[str, list[float]]:
    """The numbers of each task; with the mean over prompts all are of one."""
    groups: dict[str, list[float]] = {}
    for (task, _), value in values.items():
        groups.setdefault(task if mean == "tasks" else "", []).append(value)
    return groups
