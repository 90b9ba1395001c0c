"""`drpo report`: writes summary.json and report.html of a run anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from drpo.cli.common import say
from drpo.cli.parts import Parts
from drpo.config import Config, runs_folder
from drpo.errors import ConfigError


def report(
    run: Annotated[Path, typer.Argument(help="A run: its folder, or its name under runs/.")],
) -> None:
    """Write summary.json and report.html of a run anew, also while it still trains. Evaluates nothing."""
    from drpo.training.run_folder import read_config
    from drpo.training.run_lock import is_being_trained

    run_dir = find_run_by_name(run)
    config = read_config(run_dir)
    parts = Parts(run_dir)
    write_summary_and_report(config, run_dir, parts, still_trains=is_being_trained(run_dir))
    parts.end()


def find_run_by_name(run: Path) -> Path:
    """The folder of a run. `run` is that folder, or the name of a run in the folder of all runs."""
    from drpo.training.run_folder import CONFIG_FILE

    for candidate in (run, runs_folder() / run):
        if (candidate / CONFIG_FILE).is_file():
            return candidate.resolve()
    raise ConfigError(f"there is no run {run}; give the folder of a run, or the name of a run under {runs_folder()}/")


def write_summary_and_report(
    config: Config,
    run_dir: Path,
    parts: Parts,
    seconds: dict[str, float] | None = None,
    *,
    still_trains: bool = False,
) -> dict[str, Any] | None:
    """Writes summary.json and report.html from what is in a run's folder, and prints the report's path.

    Returns the summary; None if it failed.

    Args:
        config: the run's settings.
        run_dir: the run's folder.
        parts: takes what fails.
        seconds: see `drpo.evaluation.write_summary`.
        still_trains: see `drpo.report.write_report`.
    """
    from drpo.evaluation.summary import check_comparison, write_summary
    from drpo.report import write_report

    summary = None
    with parts.part("evaluation"):
        check_comparison(run_dir)
    with parts.part("summary.json"):
        summary = write_summary(run_dir, config, seconds=seconds)
    with parts.part("report.html"):
        say("report: ", (str(write_report(run_dir, still_trains=still_trains)), "bold"))
    return summary
