"""`drpo judge`: which of two models makes the better pictures, by a judge behind the ranking API."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from drpo.cli.common import DryRun, check_before_start, console, ray_and_rewards, say
from drpo.config import Problem, read_preset
from drpo.errors import ConfigError

if TYPE_CHECKING:
    from drpo.evaluation.judging import Outcome, Pair, Verdicts
    from drpo_rewards.api.contract import ModelInfo
    from drpo_rewards.client import RankingClient

JUDGE = "judge"


def judge(
    context: typer.Context,
    models: Annotated[
        list[str], typer.Argument(help="The first model is judged against each other one: names of rows, or folders.")
    ],
    evaluation: Annotated[Path, typer.Option("--in", help="The folder of `drpo eval --row`.")] = Path("evaluation"),
    reward: Annotated[str, typer.Option(help="The judge: a reward of the service.")] = JUDGE,
    pairs: Annotated[int, typer.Option(min=1, help="The most pairs of each two models.")] = 500,
    both_orders: Annotated[
        bool, typer.Option(help="Send each pair in both orders, for a judge that looks in one order only.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Pairs at once.")] = 8,
    preset: Annotated[str, typer.Option(help="The preset with the ranking service.")] = "shapes",
    out: Annotated[Path | None, typer.Option(help="The folder to write; default: judge/ in the folder --in.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Let a judge compare the pictures of models, pair by pair. Goes on where it stopped."""
    from drpo.checks.outputs import find_folder_obstacle
    from drpo.evaluation.judging import find_pairs

    problems = list[Problem]()
    first, *others = [_find_row(name, evaluation) for name in models]
    if not others:
        problems.append(Problem("models", "give two models or more: drpo judge A B"))
    found: dict[Path, list[Pair]] = {}
    for other in others:
        try:
            if other == first or other.name in {one.name for one in found}:
                raise ConfigError(f"{other.name} is named twice")
            found[other] = find_pairs(first, other, pairs)
        except ConfigError as error:
            problems.append(Problem("models", str(error)))
    out = Path(os.path.abspath(out if out is not None else evaluation / "judge"))
    if obstacle := find_folder_obstacle(out):
        problems.append(Problem("--out", f"--out: {obstacle}"))
    matched_pairs = sum(map(len, found.values()))
    calls = matched_pairs * (2 if both_orders else 1)
    if matched_pairs:
        say(f"{matched_pairs} pairs, at most {calls} calls of {reward}; a judge that looks in both orders")
        say("itself asks its model twice for each. Fewer: --pairs")
    values = read_preset(preset)
    config = check_before_start(values, context.args, problems=problems, dry_run=dry_run, verb="table", asks=(reward,))

    from drpo.evaluation.judging import Verdicts, draw_bars, read_row_name, summarize
    from drpo.training.files import write_text
    from drpo.training.ranking_client import make_ranking_client

    outcomes = {}
    with ray_and_rewards(config) as served, make_ranking_client(served.rewards) as client:
        info = find_judge(client, reward)
        files = {other: out / f"{first.name}-against-{other.name}.jsonl" for other in found}
        kept = {other: Verdicts(path, reward, info.version, both_orders=both_orders) for other, path in files.items()}
        missing = sum(len(kept[other].missing(matched)) for other, matched in found.items())
        if missing < matched_pairs:
            left = missing * (2 if both_orders else 1)
            say(f"{matched_pairs - missing} of the pairs are judged already: at most {left} calls are left")
        with make_progress() as bar:
            for other, matched in found.items():
                verdicts, name = kept[other], read_row_name(other)
                ask_missing(verdicts, matched, client, info, bar, f"against {name}", concurrency=concurrency)
                outcomes[name if name not in outcomes else str(other)] = summarize(verdicts.of(matched))
    model = read_row_name(first)
    results = {"model": model, "judge": reward, "version": info.version, "both_orders": both_orders}
    results["against"] = {name: outcome.to_json() for name, outcome in outcomes.items()}
    write_text(out / "judge.json", json.dumps(results, indent=1) + "\n")
    draw_bars(out / "judge.svg", model, outcomes)
    print_outcomes(model, outcomes)
    say(f"written to {out}: judge.json, judge.svg and the verdicts")


def _find_row(name: str, evaluation: Path) -> Path:
    """The folder of a row's pictures, from its path or its name."""
    from drpo.evaluation.table.row import Row

    if Path(name).is_dir():
        return Path(os.path.abspath(name))
    return Path(os.path.abspath(evaluation / "pictures" / Row(name=name or "?", what="base").folder))


def make_progress() -> Progress:
    """A bar for each two models."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def ask_missing(
    verdicts: Verdicts,
    pairs: Sequence[Pair],
    client: RankingClient,
    judge: ModelInfo,
    bar: Progress,
    label: str,
    *,
    concurrency: int = 8,
) -> None:
    """Asks the judge for the verdicts that are not there yet, with a bar of all pairs."""
    missing = verdicts.missing(pairs)
    task = bar.add_task(label, total=len(pairs), completed=len(pairs) - len(missing))
    progress = partial(bar.advance, task)
    verdicts.judge(missing, client, schema=judge.metadata_schema, concurrency=concurrency, progress=progress)


def find_judge(client: RankingClient, reward: str) -> ModelInfo:
    """What the service says of the judge.

    Raises:
        ConfigError: the service has no such reward.
    """
    models = {model.name: model for model in client.models()}
    if reward not in models:
        raise ConfigError(f"--reward: the service has no {reward!r}; choose from {', '.join(models)}")
    return models[reward]


def print_outcomes(first: str, outcomes: dict[str, Outcome]) -> None:
    """Prints a line for each model that the first one was judged against."""
    table = Table(title=Text(f"{first} against ..., % of pairs with 95 % intervals"))
    for column in ("", "win", "tie", "loss", "win without ties", "ties as half", "flips", "pairs"):
        table.add_column(column, justify="left" if not column else "right", overflow="fold")
    for name, outcome in outcomes.items():
        rates = (outcome.win, outcome.tie, outcome.loss, outcome.without_ties, outcome.half_ties)
        # The interval has a line of its own, so that all columns fit into a narrow terminal.
        # Of a single prompt there is none: nothing says how much prompts differ.
        cells = [f"{100 * one[0]:.1f}" if one else "-" for one in rates]
        if outcome.prompts > 1:
            intervals = [f"\n{100 * one[1]:.0f}..{100 * one[2]:.0f}" if one else "" for one in rates]
            cells = list(map("".join, zip(cells, intervals, strict=True)))
        flips = f"{100 * outcome.flips:.1f}" if outcome.flips is not None else "-"
        table.add_row(Text(name), *cells, flips, str(outcome.pairs))
    console.print(table)
