"""`drpo train` and `drpo demo`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from drpo.cli.common import DryRun, check_before_start, console, ray_and_rewards, say
from drpo.cli.endings import describe_ending, ending_status
from drpo.cli.parts import Parts
from drpo.cli.progress import TrainingProgress
from drpo.cli.report import find_run_by_name, write_summary_and_report
from drpo.config import Config, read_preset
from drpo.errors import ConfigError

Seed = Annotated[int | None, typer.Option(help="Seed of the run.")]
Name = Annotated[str | None, typer.Option(help="Name of the run's folder.")]


def demo(context: typer.Context, seed: Seed = None, name: Name = None, dry_run: DryRun = False) -> None:
    """Train the embedded generator, compare it with its base, and write a report. Takes about five minutes."""
    train(context, preset="shapes", seed=seed, name=name, dry_run=dry_run)


def train(
    context: typer.Context,
    preset: Annotated[str | None, typer.Option(help="The name of a preset, or a YAML file.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="The run to continue: its folder, or its name under runs/."),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(help="A LoRA adapter to start from: its file or folder, or a run by its folder or name."),
    ] = None,
    generator: Annotated[str | None, typer.Option(help="A diffusers folder or hub id: SD-Turbo, SDXL-Turbo.")] = None,
    seed: Seed = None,
    name: Name = None,
    dry_run: DryRun = False,
) -> None:
    """Train an adapter. Any setting of the preset can be changed: --training.steps 50 --optimizer.lr 3e-4.

    If a setting is given twice, the last one counts.
    """
    from drpo.training.run_folder import create_run, read_config
    from drpo.training.run_lock import lock_run

    started = time.perf_counter()
    overrides = context.args
    typed = {"lora.adapter": adapter, "model.generator": generator, "run.seed": seed, "run.name": name}
    if resume is None and preset is None:
        raise ConfigError("give --preset NAME (drpo doctor lists the presets) or --resume RUN")
    if resume is None:
        assert preset is not None
        config = check_before_start(read_preset(preset), overrides, typed=typed, dry_run=dry_run)
        run_dir = create_run(config)
    else:
        run_dir = find_run_by_name(resume)
        read_config(run_dir)  # before the lock is written into a folder that is no run
    with lock_run(run_dir) as lock:
        if not lock.held:
            say("the file system of the run has no locks: make sure that no other process trains this run")
        if resume is not None:
            config = continue_run(run_dir, preset, overrides, typed=typed, dry_run=dry_run)
        try:
            run(config, run_dir, lock.token, started)
        except KeyboardInterrupt:  # while Ray started, or a second one
            say("to continue from the newest checkpoint, or to start again if there is none, run")
            say_how_to_continue(run_dir)
            raise


def continue_run(
    run_dir: Path, preset: str | None, overrides: list[str], *, typed: dict[str, Any], dry_run: bool
) -> Config:
    """Checks that a run can go on, then writes its settings with the overrides. The caller holds the run's lock.

    Args:
        run_dir: the run's folder.
        preset: the preset of the command line, if it has one.
        overrides, typed, dry_run: see `check_before_start`.

    Raises:
        ConfigError: it cannot go on, or not with these settings, and is unchanged.
    """
    from drpo.training.run_folder import read_config, write_config

    earlier = read_config(run_dir)
    if preset not in (None, earlier.preset):
        raise ConfigError(
            f"--resume uses the settings of {run_dir.name} (preset {earlier.preset}): leave out --preset, or give the "
            "same one"
        )
    values = earlier.model_dump(mode="json")
    config = check_before_start(values, overrides, typed=typed, run_dir=run_dir, dry_run=dry_run)
    write_config(config, run_dir)
    return config


def run(config: Config, run_dir: Path, token: str, started: float) -> None:
    """Starts Ray and the rewards, trains, evaluates, and writes the summary and the report.

    Args:
        config: the settings of the run, checked.
        run_dir: the run's folder.
        token: of its lock.
        started: when the command started, by `time.perf_counter`.
    """
    from drpo.cli.evaluate import evaluate_with_progress, print_comparison, save_evaluation
    from drpo.cluster.launch import train as fit
    from drpo.evaluation import write_summary
    from drpo.tracking import Trackers
    from drpo.training.build import asks_rewards
    from drpo.training.choices import describe_choices
    from drpo.training.metrics import read_metrics
    from drpo.training.run_folder import ADAPTER, METRICS_FILE

    say("run ", (run_dir.name, "bold"), f" in {run_dir}")
    parts = Parts(run_dir)
    resumed_s = max((line.get("time_s", 0.0) for line in read_metrics(run_dir / METRICS_FILE)), default=0.0)
    with (
        ray_and_rewards(config, rewards=asks_rewards(config)) as served,
        Trackers(config, run_dir, warn=lambda text: say(("warning: ", "yellow"), text)) as trackers,
    ):
        with TrainingProgress(config, console) as progress:
            outcome = fit(
                served,
                run_dir,
                token=token,
                watch=call_all(progress, trackers.log_step),
                watch_evaluation=call_all(progress.show_evaluation, trackers.log_evaluation),
                watch_encoding=progress.show_encoding,
            )
        for line in describe_choices(run_dir):
            say(line)
        if outcome.status == "interrupted":
            say(f"{describe_ending()} at step {outcome.step}, with a checkpoint. To continue, run")
            say_how_to_continue(run_dir)
            raise typer.Exit(ending_status())
        if outcome.reason:
            say(f"stopped at step {outcome.step}: {outcome.reason}")
        trained_s = outcome.seconds - resumed_s
        seconds = {"startup": time.perf_counter() - started - trained_s, "training": outcome.seconds}
        if config.evaluation.enabled:
            with parts.part("summary.json"):  # it keeps the seconds, even if the evaluation ends this process
                write_summary(run_dir, config, seconds=seconds)
            with parts.part("evaluation"):
                evaluated = evaluate_with_progress(served, run_dir / ADAPTER)
                seconds["evaluation"] = evaluated.seconds
                save_evaluation(evaluated, run_dir, parts)
                print_comparison(evaluated.comparison)
        seconds["total"] = time.perf_counter() - started
        summary = write_summary_and_report(config, run_dir, parts, seconds)
        if summary is not None:
            trackers.log_summary(summary)
    say(
        f"{outcome.step} steps in {outcome.seconds:.0f} s, {seconds['total']:.0f} s in all. "
        f"Adapter: {run_dir / ADAPTER}"
    )
    parts.end()


def say_how_to_continue(run_dir: Path) -> None:
    """Prints the command that continues a run."""
    say((f"  drpo train --resume {shlex.quote(str(run_dir))}", "bold"))


def call_all(*watchers: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """A function that calls each of several with the same line."""

    def watch(line: dict[str, Any]) -> None:
        for watcher in watchers:
            watcher(line)

    return watch
