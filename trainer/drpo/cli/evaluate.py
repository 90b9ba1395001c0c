"""`drpo eval`, and the end of a training run: compares base and adapter."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from drpo.cli.common import console, parse_overrides, ray_and_rewards
from drpo.config import Config, load_config, override_config

if TYPE_CHECKING:
    from drpo.evaluation import AdapterEvaluation

Seconds = dict[str, float]


def evaluate(
    context: typer.Context,
    adapter: Annotated[Path, typer.Option(help="An adapter: its file or folder, or the folder of a run.")],
    preset: Annotated[str, typer.Option(help="The preset to use if the adapter is not in a run's folder.")] = "shapes",
    generator: Annotated[
        str | None, typer.Option(help="The generator to use instead of the one in the settings.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The JSON file to write; default: the run's summary, or evaluation.json in the adapter's folder."
        ),
    ] = None,
) -> None:
    """Compare an adapter with its base on held-out prompts, from the same noise. Prints a table and writes JSON."""
    from drpo.cli.sample import find_adapter
    from drpo.generators import check_adapter
    from drpo.shapes.embedded import generator_source
    from drpo.training.check import check_config
    from drpo.training.run_folder import find_run, read_config

    file = find_adapter(adapter)
    run_dir = find_run(file)
    overrides = parse_overrides(context.args) + ([f"model.generator={generator}"] if generator else [])
    config = check_config(
        override_config(read_config(run_dir), overrides) if run_dir is not None else load_config(preset, overrides)
    )
    check_adapter(file, generator_source(config.model.generator))  # now rather than after the service has started
    with ray_and_rewards(config) as served:
        evaluated = evaluate_with_progress(served, file)
    print_comparison(evaluated.comparison)
    if out is not None or run_dir is None:
        out = out or file.parent / "evaluation.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(evaluated.comparison, indent=2) + "\n")
        console.print(f"written to {out}", highlight=False, soft_wrap=True)
    else:
        write_results(config, run_dir, evaluated, {"evaluation": evaluated.seconds})


def evaluate_with_progress(config: Config, adapter: Path) -> AdapterEvaluation:
    """Evaluates base and adapter with a progress bar. A ranking service must run at `config.rewards.address`."""
    import torch

    from drpo.evaluation import evaluate_adapter

    use_gpu = config.model.device != "cpu" and torch.cuda.is_available()
    if not use_gpu:  # leave one core for the rewards, which score while this process generates
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("evaluating base and adapter", total=None)
        return evaluate_adapter(
            config,
            adapter,
            device="cuda" if use_gpu else "cpu",
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def write_results(config: Config, run_dir: Path, evaluated: AdapterEvaluation | None, seconds: Seconds) -> None:
    """Writes evaluation.jsonl, samples/, summary.json and report.html of a run, and prints the report's path."""
    from drpo.evaluation import write_summary
    from drpo.report import write_report

    if evaluated is not None:
        evaluated.save(run_dir)
    write_summary(run_dir, config, evaluated.comparison if evaluated is not None else None, seconds=seconds)
    report = write_report(run_dir)
    console.print(f"report: [bold]{report}[/]", highlight=False, soft_wrap=True)


def print_comparison(comparison: dict[str, Any]) -> None:
    """Prints the comparison as a table."""
    unit = " %" if comparison["percentage"] else ""
    notes = (", percent" if unit else "") + ("" if comparison["higher_is_better"] else ", lower is better")
    table = Table(title=f"{comparison['metric']} on held-out prompts{notes}")
    for column in ("task", "base", "tuned", "difference", "95 % interval", "images"):
        table.add_column(column, justify="left" if column == "task" else "right")
    digits = 1 if unit else 3
    rows = list(comparison["tasks"].items())
    for task, row in [*rows, ("mean", comparison["mean"])] if len(rows) > 1 else rows:
        low, high = row["ci95"]
        better, worse = (low > 0, high < 0) if comparison["higher_is_better"] else (high < 0, low > 0)
        color = "green" if better else "red" if worse else "default"
        table.add_row(
            task or "all",
            f"{row['base']:.{digits}f}",
            f"{row['tuned']:.{digits}f}",
            f"[{color}]{row['difference']:+.{digits}f}[/]",
            f"{low:+.{digits}f} to {high:+.{digits}f}",
            str(row["images"]),
            style="bold" if task == "mean" else None,
            end_section=task == rows[-1][0],
        )
    console.print(table)
