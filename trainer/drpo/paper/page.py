"""The page of an experiment, made from the files of its folder alone: our table or figure beside the paper's."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from drpo.errors import EvaluationError
from drpo.evaluation.judging import draw_bars
from drpo.evaluation.table.render import join_markdown
from drpo.evaluation.table.run import COLOURS, DIVERSITY, PLACES
from drpo.paper.begun import describe_begun
from drpo.paper.experiment import JudgingSpec
from drpo.paper.judged import read_judge_version, read_outcomes
from drpo.paper.plan import PaperPlan, read_plan
from drpo.paper.result import SeedMean, join_column, mean_step_seconds, training_hours
from drpo.training.files import storing, write_text

PAGE_FILE = "page.md"


def write_page(plan: PaperPlan) -> Path:
    """Writes page.md, and figures beside it, and returns its path.

    Raises:
        EvaluationError: the evaluation is not there yet.
        StorageError: it could not be written.
    """
    columns = read_columns(plan) if plan.experiment.kind != "profile" else []
    parts = [f"# {plan.experiment.title}", "", f"World: {plan.world}. {_runs(plan)}", ""]
    if plan.experiment.kind == "profile":
        parts += _profile(plan)
    else:
        last = plan.points[-1] if plan.is_curve else None
        joined = {_title(column, columns): (column, join_column(plan, column, last)) for column in columns}
        parts += ["## Ours", "", _table(joined), ""]
        parts += _legend(plan, {column["title"] for column in columns})
        parts += _tasks(plan, columns)
        if plan.is_curve:
            parts += _curves(plan, columns)
        if plan.spec.judging is not None:
            parts += _judged(plan, plan.spec.judging)
    parts += ["## The paper", "", *_paper_table(plan), plan.experiment.paper.note, ""]
    parts += ["## Made by", "", *_made_by(plan)]
    path = plan.out / PAGE_FILE
    write_text(path, "\n".join(parts))
    return path


def read_columns(plan: PaperPlan) -> list[dict[str, Any]]:
    """The columns of the evaluation.

    Raises:
        EvaluationError: there is none.
    """
    return _read_results(plan)["columns"]


def _read_results(plan: PaperPlan) -> dict[str, Any]:
    path = plan.table / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        return {"columns": list(results["columns"]), "rewards": dict(results.get("rewards", {}))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} is missing or damaged: run the experiment again, it goes on there") from error


def _runs(plan: PaperPlan) -> str:
    left = sum(not run.finished for run in plan.runs())
    rows = len(plan.spec.runs)
    return (
        f"{rows} trained row{'s' * (rows > 1)}, {plan.seeds} seed{'s' * (plan.seeds > 1)}, {plan.steps} "
        f"step{'s' * (plan.steps > 1)} each, {training_hours(plan):.2f} hours of training in all."
        + (f" {left} of {len(plan.runs())} runs are not finished." if left else "")
    )


def _table(joined: Mapping[str, tuple[Mapping[str, Any], Mapping[str, SeedMean]]]) -> str:
    """The means over seeds, with the lowest and highest seed, and a star for a difference from the base."""
    rows = list(dict.fromkeys(row for _, cells in joined.values() for row in cells))
    lines = [["", *joined], ["---", *("---:" for _ in joined)]]
    for row in rows:
        line = [row]
        for column, cells in joined.values():
            cell = cells.get(row)
            digits = column.get("digits", 3)
            if cell is None:
                line.append("-")
                continue
            text = f"{cell.mean:.{digits}f}{'*' if cell.significant else ''}"
            line.append(text + (f" ({cell.low:.{digits}f} to {cell.high:.{digits}f})" if cell.seeds > 1 else ""))
        lines.append(line)
    return join_markdown(lines)


def _legend(plan: PaperPlan, titles: Collection[str]) -> list[str]:
    """What the numbers mean, and which of them guard the others."""
    seeds = "Means over the seeds, with the lowest and the highest seed. " if plan.seeds > 1 else ""
    base = plan.spec.rows[0].partition("=")[0]
    guards = [title for title in (DIVERSITY, COLOURS, PLACES) if title in titles]
    guarded = (
        f"Guards of the scores: {', '.join(guards)}. A method that wins by always drawing the same has not won."
        if guards
        else "No column here shows whether a method wins by always drawing the same."
    )
    return [
        f"{seeds}A star: the 95 % interval of the difference from {base} does not contain 0 (over prompts and seeds). "
        f"Nothing is corrected for the number of cells. {guarded}",
        "",
    ]


def _tasks(plan: PaperPlan, columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first column by task, if its prompts have tasks."""
    with_tasks = [column for column in columns if any("tasks" in cell for cell in column["cells"].values())]
    if not with_tasks:
        return []
    column = with_tasks[0]
    tasks = next(list(cell["tasks"]) for cell in column["cells"].values() if "tasks" in cell)
    by_task: dict[str, tuple[Mapping[str, Any], Mapping[str, SeedMean]]] = {}
    last = plan.points[-1] if plan.is_curve else None
    for task in tasks:
        cells = {row: {"mean": cell["tasks"][task]} for row, cell in column["cells"].items() if "tasks" in cell}
        by_task[task] = (column, join_column(plan, {"cells": cells}, last))
    return [f"### {_title(column, columns)} by task", "", _table(by_task), ""]


def _curves(plan: PaperPlan, columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """One figure for each column: the mean over seeds against the steps, with the range of the seeds."""
    import matplotlib
    from matplotlib.figure import Figure

    parts = ["## Curves", ""]
    base = plan.spec.rows[0].partition("=")[0]
    for number, column in enumerate(columns):
        points = {step: join_column(plan, column, step) for step in plan.points}
        file = f"curve-{number}.svg"
        settings: Any = {"svg.fonttype": "none", "svg.hashsalt": file, "font.size": 10, "text.parse_math": False}
        with matplotlib.rc_context(settings), storing(plan.out / file):
            figure = Figure(figsize=(6.0, 3.4), layout="constrained")
            axes = figure.add_subplot()
            for row in plan.spec.runs:
                cells = {0: points[plan.points[0]].get(base)} | {step: found.get(row) for step, found in points.items()}
                known = {step: cell for step, cell in cells.items() if cell is not None}
                steps = list(known)
                axes.plot(steps, [cell.mean for cell in known.values()], marker="o", markersize=3, label=row)
                lows, highs = [cell.low for cell in known.values()], [cell.high for cell in known.values()]
                axes.fill_between(steps, lows, highs, alpha=0.15)
            axes.set_xlabel("optimizer steps")
            axes.set_ylabel(_title(column, columns))
            axes.legend(frameon=False)
            axes.spines[["top", "right"]].set_visible(False)
            figure.savefig(plan.out / file, format="svg", metadata={"Date": None, "Creator": None})
        parts += [f"![{_title(column, columns)} against steps]({file})", ""]
    return parts


def _judged(plan: PaperPlan, judging: JudgingSpec) -> list[str]:
    """For each set of prompts, the rates of the first row against each other one, as a figure and a table."""
    parts = ["## What the judge says", ""]
    for number, (prompts, outcomes) in enumerate(read_outcomes(plan).items()):
        file = f"judge-{number}.svg"
        draw_bars(plan.out / file, judging.first, outcomes)
        lines = [[f"{judging.first} against", "win", "tie", "loss", "win without ties", "flips", "pairs"]]
        lines.append(["---", *("---:" for _ in lines[0][1:])])
        for row, outcome in outcomes.items():
            rates = (outcome.win, outcome.tie, outcome.loss, outcome.without_ties)
            cells = [f"{100 * one[0]:.1f} ({100 * one[1]:.1f} to {100 * one[2]:.1f})" if one else "-" for one in rates]
            flips = f"{100 * outcome.flips:.1f}" if outcome.flips is not None else "-"
            lines.append([row, *cells, flips, str(outcome.pairs)])
        parts += [
            f"### {prompts}",
            "",
            f"![{judging.first} against the other rows]({file})",
            "",
            join_markdown(lines),
            "",
        ]
    return [*parts, f"In % of the pairs, with 95 % intervals over the prompts. The judge is {judging.judge}.", ""]


def _profile(plan: PaperPlan) -> list[str]:
    """The mean seconds of a step, by stage."""
    rows = mean_step_seconds(plan)
    stages = list(dict.fromkeys(stage for row in rows.values() for stage in row if stage != "total"))
    training = {run.row: run.config.training for run in plan.runs()}
    images = {row: str(one.groups_per_step * one.candidates) for row, one in training.items()}
    lines = [["", "images", "step, s", *stages], ["---", *("---:" for _ in [0, 0, *stages])]]
    for row, seconds in rows.items():
        numbers = (seconds.get(stage, math.nan) for stage in ("total", *stages))
        lines.append([row, images[row], *("-" if math.isnan(one) else f"{one:.3f}" for one in numbers)])
    totals = {row: seconds["total"] for row, seconds in rows.items() if "total" in seconds}
    ratio = []
    if len(totals) > 1:
        slowest, fastest = max(totals, key=lambda row: totals[row]), min(totals, key=lambda row: totals[row])
        ratio = [
            f"A step of {slowest} takes {totals[slowest] / totals[fastest]:.2f} times as long as one of {fastest}.",
            "",
        ]
    return ["## Ours", "", join_markdown(lines), "", "Means over all steps but the first of each run.", "", *ratio]


def _paper_table(plan: PaperPlan) -> list[str]:
    paper = plan.experiment.paper
    if not paper.rows:
        return []
    lines: list[list[str]] = [["", *paper.columns], ["---", *("---:" for _ in paper.columns)]]
    columns = [_align(numbers) for numbers in zip(*paper.rows.values(), strict=True)]
    lines += [[row, *cells] for row, *cells in zip(paper.rows, *columns, strict=True)]
    return [join_markdown(lines), ""]


def _align(numbers: Sequence[float | str | None]) -> list[str]:
    """The numbers of a column as the paper prints them: fractions with the same number of decimals."""
    decimals = max((len(repr(one).partition(".")[2]) for one in numbers if isinstance(one, float)), default=0)
    shown = [f"{one:.{decimals}f}" if isinstance(one, float) else one for one in numbers]
    return ["-" if one is None else str(one) for one in shown]


def _title(column: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> str:
    several = len({one["prompts"] for one in columns}) > 1
    return f"{column['prompts']}: {column['title']}" if several else str(column["title"])


def _made_by(plan: PaperPlan) -> list[str]:
    """The command that makes all of it again, where it was given, and what was installed there."""
    begun = (read_plan(plan.out) or {}).get("begun")
    rewards = _read_results(plan)["rewards"] if plan.experiment.kind != "profile" else {}
    if plan.spec.judging is not None:
        rewards |= {plan.spec.judging.judge: read_judge_version(plan)}
    folder = [f"cd {shlex.quote(begun['folder'])}"] if begun else []
    described = ["", *(f"{line}  " for line in describe_begun(begun, rewards))] if begun else []
    return ["```", *folder, _command(plan), "```", *described, ""]


def _command(plan: PaperPlan) -> str:
    source = plan.experiment.source
    if source.endswith((".yaml", ".yml")):
        source = os.path.abspath(source)
    words = ["drpo", "paper", source, "--world", plan.world, "--seeds", str(plan.seeds)]
    words += ["--out", str(plan.out)]
    if plan.steps != (spec := (plan.owner or plan).spec).steps:
        words += ["--budget", f"{(plan.steps + 0.5) * len(spec.runs) * plan.seeds * spec.step_seconds:.1f}s"]
    for one in plan.overrides:
        key, _, value = one.partition("=")
        words.append(f"--{key}={value}")
    return f"{shlex.join(words)}    # {plan.steps} steps each"
