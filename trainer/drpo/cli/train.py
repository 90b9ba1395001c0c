"""`drpo train` and `drpo demo`."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from drpo.cli.common import DryRun, check_before_start, console, parse_overrides, ray_and_rewards, say
from drpo.cli.progress import TrainingProgress
from drpo.config import Config, read_preset, runs_folder
from drpo.config.sections import MOST_SEED
from drpo.errors import ConfigError

Seed = Annotated[int | None, typer.Option(min=0, max=MOST_SEED, help="Seed of the run.")]
Name = Annotated[str | None, typer.Option(help="Name of the run's folder.")]


def demo(context: typer.Context, seed: Seed = None, name: Name = None, dry_run: DryRun = False) -> None:
    """Train the embedded generator, compare it with its base, and write a report. Takes about five minutes."""
    train(context, preset="shapes", seed=seed, name=name, dry_run=dry_run)


def train(
    context: typer.Context,
    preset: Annotated[str | None, typer.Option(help="The name of a preset, or a YAML file.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="The run to continue: its folder, or its name under runs/.")
    ] = None,
    generator: Annotated[str | None, typer.Option(help="A diffusers folder or hub id in the SD-Turbo layout.")] = None,
    seed: Seed = None,
    name: Name = None,
    dry_run: DryRun = False,
) -> None:
    """Train an adapter. Any setting of the preset can be changed: --training.steps 50 --optimizer.lr 3e-4."""
    from drpo.training.run_folder import create_run, read_config, write_config

    started = time.perf_counter()
    overrides = parse_overrides(context.args)
    typed = {"model.generator": generator, "run.seed": seed, "run.name": name}
    if resume is not None:
        run_dir = find_run_to_resume(resume)
        config = read_config(run_dir)
        if preset not in (None, config.preset) or name not in (None, run_dir.name):
            raise ConfigError(
                f"--resume uses the settings of {run_dir.name} (preset {config.preset}): leave out --preset and "
                "--name, or give the same ones"
            )
        values = config.model_dump(mode="json")
        config = check_before_start(values, overrides, typed=typed, run_dir=run_dir, dry_run=dry_run)
        write_config(config, run_dir)
    elif preset is None:
        raise ConfigError("give --preset NAME (drpo doctor lists the presets) or --resume RUN")
    else:
        config = check_before_start(read_preset(preset), overrides, typed=typed, dry_run=dry_run)
        run_dir = create_run(config)
    run(config, run_dir, started)


def find_run_to_resume(run: Path) -> Path:
    """The folder of a run. `run` is that folder, or the name of a run in the folder of all runs."""
    from drpo.training.run_folder import CONFIG_FILE

    for candidate in (run, runs_folder() / run):
        if (candidate / CONFIG_FILE).is_file():
            return candidate.resolve()
    raise ConfigError(f"there is no run {run}; give the folder of a run, or the name of a run under {runs_folder()}/")


def run(config: Config, run_dir: Path, started: float) -> None:
    """Starts Ray and the rewards, trains, evaluates, and writes the report."""
    from drpo.cli.evaluate import evaluate_with_progress, print_comparison, write_results
    from drpo.cluster.launch import train as fit
    from drpo.training.metrics import read_metrics
    from drpo.training.run_folder import ADAPTER, METRICS_FILE

    say("run ", (run_dir.name, "bold"), f" in {run_dir}")
    resumed_s = max((line["time_s"] for line in read_metrics(run_dir / METRICS_FILE)), default=0.0)
    with ray_and_rewards(config) as served:
        with TrainingProgress(config, console) as progress, sigterm_as_ctrl_c():
            outcome = fit(served, run_dir, watch=progress)
        if outcome.status == "interrupted":
            say(f"stopped at step {outcome.step}, with a checkpoint. To continue, run")
            say((f"  drpo train --resume {shlex.quote(str(run_dir))}", "bold"))
            raise typer.Exit(130)
        trained_s = outcome.seconds - resumed_s
        seconds = {"startup": time.perf_counter() - started - trained_s, "training": outcome.seconds}
        evaluated = evaluate_with_progress(served, run_dir / ADAPTER) if config.evaluation.enabled else None
    if evaluated is not None:
        print_comparison(evaluated.comparison)
        seconds["evaluation"] = evaluated.seconds
    seconds["total"] = time.perf_counter() - started
    write_results(config, run_dir, evaluated, seconds)
    say(
        f"{outcome.step} steps in {outcome.seconds:.0f} s, {seconds['total']:.0f} s in all. "
        f"Adapter: {run_dir / ADAPTER}"
    )


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Treats SIGTERM as Ctrl-C within this block, so that the run writes a checkpoint before it ends.

    `ray job stop` and container runtimes send SIGTERM. Enter the block after Ray has started, because Ray installs its
    own handler when it starts.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    earlier_handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier_handler)
