"""`drpo runs` and `drpo compare`: the runs in a folder, and several of them on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from drpo.cli.common import console, say
from drpo.cli.report import find_run_by_name
from drpo.config import runs_folder
from drpo.errors import ConfigError
from drpo_rewards.screen import make_console

PAGES = (".html", ".htm")
PIPED_WIDTH = 500
"""Characters of a line that no terminal shows, so that every run has one line for `grep`."""


def runs(
    folder: Annotated[
        Path | None, typer.Argument(help="The folder of the runs; default: runs/, or that of the site's settings.")
    ] = None,
) -> None:
    """List the runs in a folder: state, step, score and time."""
    from drpo.report import format_duration
    from drpo.report.overview import read_overviews

    folder = folder if folder is not None else runs_folder()
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; give the folder that holds the runs")
    overviews = read_overviews(folder)
    if not overviews:
        say(f"there are no runs in {folder}")
        return
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ("run", "state", "step", "base", "score", "metric", "time", "started"):
        number = column in ("step", "base", "score", "time")
        folds = column in ("run", "metric")  # in a narrow terminal
        table.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=not folds)
    for one in overviews:
        cells = (
            one.name,
            one.state,
            f"{one.step}/{one.steps}",
            one.base,
            one.score,
            one.metric,
            format_duration(one.seconds) if one.seconds else "",
            one.started.partition("-")[2],  # the year is left out
        )
        table.add_row(*(Text(cell) for cell in cells))
    to = console if console.is_terminal else make_console("stdout", width=PIPED_WIDTH)
    to.print(table)


def compare(
    run: Annotated[list[Path], typer.Argument(help="Two runs or more: their folders, or their names under runs/.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("compare.html"),
) -> None:
    """Write one page with the curves and the pictures of several runs side by side."""
    from drpo.report.compare import write_comparison_page

    if len(run) < 2:
        raise ConfigError("give at least two runs to compare")
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; give the file to write")
    takes_all = out.is_relative_to("/dev") or (out.exists() and not out.is_file())  # a device or a pipe
    if out.suffix.lower() not in PAGES and not takes_all:
        raise ConfigError(f"--out: {out} does not end in .html; give the page to write")
    folders = [find_run_by_name(one) for one in run]
    if len(set(folders)) < len(folders):
        raise ConfigError("a run is given twice; give each once")
    _check_configs(folders)
    say("comparison: ", (str(write_comparison_page(folders, out)), "bold"))


def _check_configs(folders: Sequence[Path]) -> None:
    """Raises one ConfigError that says which of the runs have settings that cannot be read."""
    from drpo.training.run_folder import read_config

    problems = []
    for folder in folders:
        try:
            read_config(folder)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
