"""`drpo eval`, and the end of a training run: compares base and adapter."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from drpo.cli.common import DryRun, check_before_start, console, ray_and_rewards, say
from drpo.cli.parts import Parts
from drpo.cli.report import write_summary_and_report
from drpo.cli.table import evaluate_table
from drpo.config import Config, Problem, read_preset
from drpo.errors import ConfigError

if TYPE_CHECKING:
    from drpo.evaluation import AdapterEvaluation


class Scale(StrEnum):
    """What scores in tables are multiplied by."""

    raw = "raw"
    paper = "paper"


class FidFeatures(StrEnum):
    """In whose features distributions are compared."""

    inception = "inception"
    map = "map"


def evaluate(
    context: typer.Context,
    adapter: Annotated[
        Path | None,
        typer.Option(help="A LoRA adapter or a whole U-Net: its file or folder, or a run by its folder or name."),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="A row of a table: NAME=base, an adapter, a generator, or a pipeline such as "
            "SD1.5=runwayml/stable-diffusion-v1-5,steps=50,guidance=7.5. Repeat for more rows."
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(help="With --row: a set of prompts, NAME=SOURCE,key=value. Repeat for more sets."),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(help="With --row: a reward of the service, or REWARD/METRIC. Repeat for more columns."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="With --row: images per prompt, each from its own matched seed.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="With --row: the row that the others are compared with; default: the first.")
    ] = None,
    scale: Annotated[
        Scale, typer.Option(help="With --row: paper multiplies scores as the paper's tables do.")
    ] = Scale.raw,
    diversity: Annotated[
        bool, typer.Option(help="With --row: measure the diversity of each prompt's pictures in the feature map.")
    ] = True,
    fid: Annotated[
        str | None,
        typer.Option(help="With --row: FID and KID to the pictures of a row, a folder, or hub:ORG/NAME[:SPLIT]."),
    ] = None,
    fid_features: Annotated[
        FidFeatures, typer.Option(help="With --fid: features of Inception, or of the settings' feature map.")
    ] = FidFeatures.inception,
    grid: Annotated[int, typer.Option(min=0, help="With --row: prompts in the grid of pictures.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="With --row: Ray workers that generate.")] = 1,
    preset: Annotated[str, typer.Option(help="The preset to use if the adapter is not in a run's folder.")] = "shapes",
    generator: Annotated[
        str | None, typer.Option(help="The generator to use instead of the one in the settings.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The JSON file to write; default: the run's results, or evaluation.json in another adapter's folder. "
            "With --row the folder; default: evaluation."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Compare an adapter with its base on held-out prompts, from the same noise; or any models with --row."""
    if row:
        if adapter is not None or generator is not None:
            raise ConfigError(
                "--row takes the place of --adapter and --generator: write --row NAME=ADAPTER,generator=..."
            )
        from drpo.evaluation.table.options import TableOptions

        options = TableOptions(tuple(reward or ()), against, scale.value, diversity, fid, fid_features.value, grid)
        evaluate_table(
            row,
            prompts or (),
            options,
            preset=preset,
            overrides=context.args,
            images=images,
            workers=workers,
            out=out,
            dry_run=dry_run,
        )
        return
    for option, value in (("--prompts", prompts), ("--reward", reward), ("--images", images), ("--fid", fid)):
        if value:
            raise ConfigError(f"{option} is for a table of rows: give --row NAME=WHAT too")
    if adapter is None:
        raise ConfigError("give --adapter ADAPTER, or --row NAME=WHAT for each row of a table")
    evaluate_run(context, adapter, preset=preset, generator=generator, out=out, dry_run=dry_run)


def evaluate_run(
    context: typer.Context, adapter: Path, *, preset: str, generator: str | None, out: Path | None, dry_run: bool
) -> None:
    """Compares an adapter with its base. Prints a table and writes JSON."""
    from drpo.checks.outputs import find_results_obstacle
    from drpo.training.files import storing, write_text
    from drpo.training.run_folder import ADAPTER, find_run, locate_adapter, read_config

    overrides, problems = context.args, []
    file: Path | None = None
    try:
        file = locate_adapter(adapter)
    except ConfigError as error:
        problems.append(Problem("--adapter", f"--adapter: {error}"))
    out = out.expanduser() if out is not None else None
    if out is not None and (obstacle := find_results_obstacle(out, "metric")):
        problems.append(Problem("--out", f"--out: {obstacle}; give another file"))
    run_dir = find_run(file) if file is not None else None
    values = read_config(run_dir).model_dump(mode="json") if run_dir is not None else read_preset(preset)
    if run_dir is not None and file is not None and file.parent != run_dir / ADAPTER:
        run_dir = None  # a checkpoint: a run's results are of its own adapter
    config = check_before_start(
        values,
        overrides,
        typed={"model.generator": generator},
        problems=problems,
        dry_run=dry_run,
        verb="evaluate",
        adapter=file,
        out=out or (run_dir / "summary.json" if run_dir is not None else (file or adapter).parent / "evaluation.json"),
    )
    assert file is not None  # otherwise the check has raised an error
    with ray_and_rewards(config) as served:
        evaluated = evaluate_with_progress(served, file)
    print_comparison(evaluated.comparison)
    if out is not None or run_dir is None:
        out = out or file.parent / "evaluation.json"
        with storing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, json.dumps(evaluated.comparison, indent=2) + "\n")
        say(f"written to {out}")
    else:
        parts = Parts(run_dir)
        save_evaluation(evaluated, run_dir, parts)
        write_summary_and_report(config, run_dir, parts, {"evaluation": evaluated.seconds})
        parts.end()


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


def save_evaluation(evaluated: AdapterEvaluation, run_dir: Path, parts: Parts) -> None:
    """Writes evaluation.jsonl, evaluation.json and samples/ of a run. `parts` takes what fails."""
    with parts.part("evaluation (scores)"):
        evaluated.save_scores(run_dir)
    with parts.part("evaluation (pictures)"):
        evaluated.save_pictures(run_dir)


def print_comparison(comparison: dict[str, Any]) -> None:
    """Prints the comparison as a table, and another one of the parts that the reward reports."""
    unit = " %" if comparison["percentage"] else ""
    notes = (", percent" if unit else "") + ("" if comparison["higher_is_better"] else ", lower is better")
    rows = list(comparison["tasks"].items())
    title = f"{comparison['metric']} on held-out prompts{notes}"
    mean = [("mean", comparison["mean"])] if len(rows) > 1 else []
    _print_rows(title, "task", rows, mean, 1 if unit else 3, comparison["higher_is_better"])
    if parts := comparison.get("parts"):
        _print_rows("parts of the score, percent", "part", list(parts.items()), [], 1, higher_is_better=True)


def _print_rows(
    title: str,
    kind: str,
    rows: list[tuple[str, Any]],
    mean: list[tuple[str, Any]],
    digits: int,
    higher_is_better: bool,
) -> None:
    """Prints rows of a comparison, and after a line that of their mean if there is one."""
    table = Table(title=Text(title))
    for column in (kind, "base", "tuned", "difference", "95 % interval", "images"):
        table.add_column(column, justify="left" if column == kind else "right")
    for number, (task, row) in enumerate([*rows, *mean], 1):
        low, high = row["ci95"] or (0, 0)  # none of a single prompt
        better, worse = (low > 0, high < 0) if higher_is_better else (high < 0, low > 0)
        color = "green" if better else "red" if worse else "default"
        table.add_row(
            Text(task or "all"),
            f"{row['base']:.{digits}f}",
            f"{row['tuned']:.{digits}f}",
            Text(f"{row['difference']:+.{digits}f}", style=color),
            f"{low:+.{digits}f} to {high:+.{digits}f}" if row["ci95"] else "-",
            str(row["images"]),
            style="bold" if number > len(rows) else None,
            end_section=number == len(rows),
        )
    console.print(table)
