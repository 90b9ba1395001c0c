"""The runs of an experiment: one after the other, or several at once where Ray has room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from drpo.cli.common import console, say
from drpo.cli.endings import ending_status
from drpo.cli.progress import TrainingProgress
from drpo.config import Config

if TYPE_CHECKING:
    from drpo.cluster.launch import Outcome
    from drpo.paper.plan import PlannedRun


def train_runs(runs: Sequence[PlannedRun], served: Config, *, together: bool) -> None:
    """Trains all runs that are not finished.

    Args:
        runs: all runs of the experiment.
        served: settings with the address of the rewards.
        together: whether several may run at once. Their times are not those of a run alone.

    Raises:
        typer.Exit: Ctrl-C; the runs have checkpoints.
        TrainingStoppedError: a run cannot continue. The others end with a checkpoint.
    """
    from drpo.cluster.room import find_room

    left = [run for run in runs if not run.finished]
    at_once = min(len(left), *(find_room(run.config) for run in left)) if together and left else 1
    if at_once > 1:
        say(f"{len(left)} of {len(runs)} runs are left, {at_once} at once")
        outcomes = _train_at_once(left, served, at_once)
    else:
        outcomes = _train_in_turn(left, served, runs)
    if "interrupted" in outcomes:
        say("stopped, with checkpoints; the same command goes on there")
        raise typer.Exit(ending_status())


def _train_in_turn(left: Sequence[PlannedRun], served: Config, runs: Sequence[PlannedRun]) -> list[str]:
    """How each run ended, up to one that was interrupted."""
    outcomes: list[str] = []
    for run in left:
        say(f"run {runs.index(run) + 1} of {len(runs)}: ", (run.run_dir.name, "bold"))
        with TrainingProgress(run.config, console) as progress:
            outcomes.append(_train_run(run, served, progress, progress.show_encoding).status)
        if outcomes[-1] == "interrupted":
            break
    return outcomes


def _train_at_once(left: Sequence[PlannedRun], served: Config, at_once: int) -> list[str]:
    """How each run ended that began."""
    from drpo.cluster.launch import stop_run

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    pool = ThreadPoolExecutor(at_once, "run")
    with Progress(*columns, console=console) as bar:

        def train(run: PlannedRun) -> str:
            say("begins: ", (run.run_dir.name, "bold"))
            task = bar.add_task(run.run_dir.name, total=run.config.training.steps)
            outcome = _train_run(run, served, lambda metrics: bar.update(task, completed=metrics["step"]), None)
            bar.remove_task(task)
            say(f"{outcome.status}: ", (run.run_dir.name, "bold"), f", {outcome.step} steps")
            return outcome.status

        futures = {pool.submit(train, run): run for run in left}
        try:
            return [future.result() for future in as_completed(futures)]
        except BaseException as error:  # Ctrl-C, or a run failed: no other begins, and those that run write checkpoints
            pool.shutdown(wait=False, cancel_futures=True)
            while wait(futures, timeout=1.0).not_done:
                for future, run in futures.items():
                    if future.running():
                        stop_run(run.run_dir)
            if isinstance(error, KeyboardInterrupt):
                return ["interrupted"]
            raise


def _train_run(
    run: PlannedRun,
    served: Config,
    watch: Callable[[dict[str, Any]], None],
    watch_encoding: Callable[[int], None] | None,
) -> Outcome:
    """Trains one run to its end, from its newest checkpoint if it has one."""
    from drpo.checks import make_paths_absolute
    from drpo.cluster.launch import train
    from drpo.training.run_folder import create_run, read_config
    from drpo.training.run_lock import lock_run

    run_dir = run.run_dir if (run.run_dir / "config.yaml").is_file() else create_run(make_paths_absolute(run.config))
    config = read_config(run_dir)
    if config.rewards.address is None:
        reached = config.rewards.model_copy(update={"address": served.rewards.address})
        config = config.model_copy(update={"rewards": reached})
    with lock_run(run_dir) as lock:
        return train(config, run_dir, token=lock.token, watch=watch, watch_encoding=watch_encoding)
