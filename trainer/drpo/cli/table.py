"""`drpo eval --row`: several models on several sets of prompts."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid
from rich.text import Text

from drpo.cli.common import check_before_start, console, ray_and_rewards, say
from drpo.config import Config, Problem, override, read_preset, salvage_config, set_value
from drpo.errors import DrpoError

if TYPE_CHECKING:
    from drpo.evaluation.table.options import TableOptions
    from drpo.evaluation.table.painters import Model
    from drpo.evaluation.table.prompt_set import PromptSet
    from drpo.evaluation.table.render import Table

OUT = Path("evaluation")


def evaluate_table(
    rows: Sequence[str],
    prompts: Sequence[str],
    options: TableOptions,
    *,
    preset: str,
    overrides: Sequence[str],
    images: int | None,
    workers: int,
    out: Path | None,
    dry_run: bool,
) -> Table:
    """Checks everything, evaluates the rows, and writes and prints the table.

    Args:
        rows, prompts: as on the command line.
        options: what the table shows.
        preset, overrides: the settings.
        images: images per prompt; None: as in the settings.
        workers: Ray workers that generate; 1: this process does.
        out: the folder; None: ./evaluation.
        dry_run: only check.
    """
    out = Path(os.path.abspath((out or OUT).expanduser()))
    values = read_preset(preset)
    typed = {"evaluation.images_per_prompt": images}
    models, sets, problems = read_options(rows, prompts, _guess(values, overrides, typed), out)
    problems += [Problem("options", problem) for problem in options.find_problems([model.row.name for model in models])]
    config = check_before_start(
        values,
        overrides,
        typed=typed,
        problems=problems,
        dry_run=dry_run,
        verb="table",
        measures_features=options.measures_features,
        asks=tuple(options.rewards),
    )
    return run_table(config, models, sets, options, workers=workers, out=out)


def _guess(values: dict[str, Any], overrides: Sequence[str], typed: dict[str, Any]) -> Config:
    """The settings as far as they are right, to look at the rows with; the check afterwards says what is wrong."""
    from drpo.checks import make_paths_absolute

    values = copy.deepcopy(values)
    override(values, overrides)
    for key, value in typed.items():
        if value is not None:
            set_value(values, key, value)
    return make_paths_absolute(salvage_config(values)[0])


def read_options(
    rows: Sequence[str], prompts: Sequence[str], config: Config, out: Path
) -> tuple[list[Model], list[PromptSet], list[Problem]]:
    """The rows and sets of prompts as they are written in options, and what is wrong with them and with the folder."""
    from drpo.checks.outputs import find_folder_obstacle
    from drpo.evaluation.table.painters import check_model, find_model
    from drpo.evaluation.table.prompt_set import make_sets
    from drpo.evaluation.table.row import parse_rows

    problems: list[Problem] = []
    models, sets = [], list["PromptSet"]()
    try:
        for row in parse_rows(rows):
            try:
                models.append(find_model(row, config))
                check_model(models[-1])
                problems += _find_missing(models[-1])
            except DrpoError as error:
                problems.append(Problem("--row", str(error)))
    except DrpoError as error:
        problems += [Problem("--row", line) for line in str(error).splitlines()]
    try:
        sets = make_sets(prompts, config)
    except DrpoError as error:
        problems += [Problem("--prompts", line) for line in str(error).splitlines()]
    if obstacle := find_folder_obstacle(out):
        problems.append(Problem("--out", f"--out: {obstacle}; give the folder to write"))
    return models, sets, problems


def _find_missing(model: Model) -> list[Problem]:
    """Whether the generator of a row is neither on this machine nor on the hub; others check that of the settings."""
    from drpo.checks.hub import check_hub, find_cached
    from drpo.evaluation.table.row import BASE
    from drpo.shapes.embedded import generator_source

    row = model.row
    source = generator_source(row.what if row.steps is not None else model.config.model.generator)
    if row.what == BASE or Path(source).is_dir() or find_cached(source) is not None:
        return []
    finding = check_hub(f"--row {row.name}", source)
    return [Problem("--row", f"{finding.found}; {finding.fix}")] if finding.state == "wrong" else []


def run_table(
    config: Config,
    models: Sequence[Model],
    sets: Sequence[PromptSet],
    options: TableOptions,
    *,
    workers: int,
    out: Path,
) -> Table:
    """Starts Ray and the rewards, evaluates, and writes and prints the table."""
    with ray_and_rewards(config) as served:
        table = tabulate(served, models, sets, options, workers=workers, out=out)
    print_table(table)
    grids = " and grids" if options.grid else ""
    say(f"written to {out}: table.md, table.csv, table.tex, results.json, pictures{grids}")
    return table


def tabulate(
    served: Config,
    models: Sequence[Model],
    sets: Sequence[PromptSet],
    options: TableOptions,
    *,
    workers: int,
    out: Path,
    kept: Path | None = None,
) -> Table:
    """Evaluates with a ranking service that runs at `served.rewards.address`, and writes the table.

    The pictures and scores are in `kept`, by default also in `out`.
    """
    import torch

    from drpo.cluster.drawing import draw_on_workers
    from drpo.evaluation.table.painters import load_painter
    from drpo.evaluation.table.pictures import draw_missing
    from drpo.evaluation.table.run import evaluate_rows
    from drpo.training.ranking_client import make_ranking_client

    use_gpu = served.model.device != "cpu" and torch.cuda.is_available()
    device = "cuda" if use_gpu else "cpu"
    batch_size = served.evaluation.batch_size
    if not use_gpu:  # leave one core for the rewards, which score while this process generates
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))

    def draw(folder: Path, model: Model) -> None:
        if workers > 1:
            threads = served.training.threads_per_worker
            draw_on_workers(
                folder, model, sets, workers=workers, use_gpu=use_gpu, threads=threads, batch_size=batch_size
            )
        else:
            draw_missing(folder, model, sets, lambda model: load_painter(model, device), batch_size=batch_size)

    with make_ranking_client(served.rewards) as client, console.status("evaluating") as status:
        return evaluate_rows(
            served,
            out,
            models,
            sets,
            options,
            client,
            draw=draw,
            kept=kept,
            device=device,
            progress=status.update,
        )


def print_table(table: Table) -> None:
    """Prints a table: the mean of each cell, green or red where it differs from the compared row."""
    grid = Grid(title=Text(f"mean ± standard error; coloured: differs from {table.against}"))
    grid.add_column("")
    for column in table.columns:
        grid.add_column(Text(f"{column.prompts}\n{column.title}"), justify="right")
    for row in table.rows:
        cells = []
        for column in table.columns:
            cell = column.cells.get(row)
            if cell is None:
                cells.append(Text("-"))
                continue
            text = f"{cell.mean:.{column.digits}f}"
            text += f" ± {cell.standard_error:.{column.digits}f}" if cell.standard_error is not None else ""
            color = "default"
            if cell.difference is not None and cell.difference.significant:
                color = "green" if (cell.difference.value > 0) == column.higher_is_better else "red"
            cells.append(Text(text, style=color))
        grid.add_row(Text(row), *cells)
    console.print(grid)
