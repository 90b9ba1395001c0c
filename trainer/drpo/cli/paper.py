"""`drpo paper`: the paper's tables and figures, each by one command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drpo.cli.common import console, ray_and_rewards, say
from drpo.cli.paper_runs import train_runs
from drpo.config import Config
from drpo.errors import ConfigError, DrpoError
from drpo_rewards.findings import Finding

if TYPE_CHECKING:
    from drpo.evaluation.table.painters import Model
    from drpo.evaluation.table.prompt_set import PromptSet
    from drpo.paper.plan import PaperPlan, PlannedRun


def paper(
    context: typer.Context,
    experiment: Annotated[str, typer.Argument(help="LIST, the name of an experiment, or a YAML file.")],
    world: Annotated[str, typer.Option(help="shapes: on two cores; real: the real models, on GPUs.")] = "shapes",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each row, with the seeds 0, 1, ...")] = 3,
    budget: Annotated[
        str | None, typer.Option(help="Training time of all runs together, such as 90m; fewer steps if it is short.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; default: paper/EXPERIMENT-WORLD.")] = None,
    page_only: Annotated[bool, typer.Option(help="Only make the page again from the files; starts nothing.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only check and print the plan.")] = False,
) -> None:
    """Make a table or figure of the paper: train, evaluate, and write a page with the paper's numbers beside ours.

    Goes on where it stopped, also after a kill.
    """
    from drpo.checks import require
    from drpo.paper.budget import parse_budget
    from drpo.paper.experiment import load_experiment
    from drpo.paper.page import write_page
    from drpo.paper.plan import folder_name, make_plan, read_plan

    if experiment.upper() == "LIST":
        print_list()
        return
    loaded = load_experiment(experiment)
    folder = Path(os.path.abspath((out or Path("paper") / folder_name(loaded, world)).expanduser()))
    overrides = tuple(context.args)
    budget_s = parse_budget(budget) if budget is not None else None
    plan = make_plan(loaded, world, seeds=seeds, budget_s=budget_s, out=folder, overrides=overrides)
    plan.check_folder()
    if page_only and read_plan(folder) is None:
        raise ConfigError(f"--page-only: nothing has been run in {folder}")
    if page_only or (not dry_run and is_done(plan)):
        if not page_only:
            plan.keep()
        say("page: ", (str(write_page(plan)), "bold"))
        return
    config, sets, findings = check_plan(plan)
    for line in plan.describe(sum(len(one.planned) for one in sets) if sets else None):
        say(line)
    require(findings)
    if dry_run:
        return
    plan.keep()
    carry_out(plan, config, sets)
    say("page: ", (str(write_page(plan)), "bold"))


def print_list() -> None:
    """Prints all experiments, and where each can be run."""
    from drpo.paper.experiment import experiment_names, load_experiment

    for name in experiment_names():
        loaded = load_experiment(name)
        say((f"{name:10}", "bold"), f"{loaded.title} ({', '.join(loaded.worlds)})")


def check_plan(plan: PaperPlan) -> tuple[Config, list[PromptSet], list[Finding]]:
    """Checks all runs and the evaluation, before anything starts.

    Returns:
        The settings and the prompts of the evaluation, and what was found. There are no prompts if a set is missing.

    Raises:
        ConfigError: the folder cannot be written.
    """
    from drpo.checks import Plan, examine, make_paths_absolute
    from drpo.checks.outputs import find_folder_obstacle
    from drpo.cli.table import read_options

    if obstacle := find_folder_obstacle(plan.out):
        raise ConfigError(f"--out: {obstacle}")
    spec, config = plan.spec, make_paths_absolute(plan.evaluation_config())
    findings = []
    with console.status("checking"):
        for run in {run.row: run for run in plan.runs()}.values():
            findings += [one for one in examine(Plan(make_paths_absolute(run.config))) if one.about != "run.name"]
        _, sets, problems = read_options(spec.rows, spec.prompts, config, plan.table)
        if plan.experiment.kind != "profile":
            asks = (*spec.rewards, *((spec.judging.judge,) if spec.judging is not None else ()))
            table = Plan(config, "table", measures_features=spec.diversity, asks=asks)
            findings += examine(table, problems)
    return config, sets, list(dict.fromkeys(findings))


def is_done(plan: PaperPlan) -> bool:
    """Whether all runs are finished, and evaluated if the experiment asks for it."""
    from drpo.paper.page import read_columns

    if not all(run.finished for run in plan.runs()):
        return False
    if plan.experiment.kind == "profile":
        return True
    try:
        cells = [column["cells"] for column in read_columns(plan)]
    except DrpoError:
        return False
    names = {name for name, _ in trained_rows(plan, plan.runs())}
    return bool(cells) and all(names <= one.keys() for one in cells) and is_judged(plan)


def is_judged(plan: PaperPlan) -> bool:
    """Whether the judge has said all, if the experiment asks one."""
    from drpo.paper.judged import read_outcomes

    if plan.spec.judging is None:
        return True
    try:
        return bool(read_outcomes(plan))
    except DrpoError:
        return False


def carry_out(plan: PaperPlan, config: Config, sets: Sequence[PromptSet]) -> None:
    """Starts Ray and the rewards, trains what is not finished, and evaluates."""
    runs = plan.runs()
    with ray_and_rewards(config) as served:
        if plan.experiment.kind != "profile":
            check_rewards(plan, served)
        train_runs(runs, served, together=plan.experiment.kind != "profile")
        if plan.experiment.kind != "profile":
            evaluate_runs(plan, served, sets)
        if plan.spec.judging is not None:
            judge_rows(plan, served, plan.spec.judging.judge)


def check_rewards(plan: PaperPlan, served: Config) -> None:
    """Checks that the service has the rewards and metrics that will be asked after the training.

    Raises:
        ConfigError: it lacks one; a line for each.
    """
    from drpo.cli.judge import find_judge
    from drpo.evaluation.table.scores import choose_columns
    from drpo.training.ranking_client import make_ranking_client

    with make_ranking_client(served.rewards) as client:
        choose_columns(plan.spec.rewards, served.rewards, client.models())
        if plan.spec.judging is not None:
            find_judge(client, plan.spec.judging.judge)


def trained_rows(plan: PaperPlan, runs: Sequence[PlannedRun]) -> list[tuple[str, Path]]:
    """The rows of the evaluation that are trained: their names and adapters."""
    from drpo.paper.result import row_name

    if not plan.is_curve:
        return [(row_name(run), run.adapter_at(plan.steps)) for run in runs]
    return [(row_name(run, step), run.adapter_at(step)) for run in runs for step in plan.points]


def evaluate_runs(plan: PaperPlan, served: Config, sets: Sequence[PromptSet]) -> None:
    """Evaluates all rows of an experiment, and writes its table."""
    from drpo.cli.table import tabulate
    from drpo.evaluation.table.options import TableOptions
    from drpo.evaluation.table.painters import find_model
    from drpo.evaluation.table.row import Row, parse_rows

    models: list[Model] = [find_model(row, served) for row in parse_rows(plan.spec.rows)]
    for name, adapter in trained_rows(plan, plan.runs()):
        models.append(find_model(Row(name=name, what=str(adapter)), served))
    options = TableOptions(
        plan.spec.rewards, scale="paper" if plan.world == "real" else "raw", diversity=plan.spec.diversity
    )
    tabulate(served, models, sets, options, workers=1, out=plan.table, kept=plan.kept)


def judge_rows(plan: PaperPlan, served: Config, judge: str) -> None:
    """Lets a judge compare the pictures of an experiment; verdicts that are there are not asked again."""
    from drpo.cli.judge import ask_missing, find_judge, make_progress
    from drpo.paper.judged import find_matches, keep_judge
    from drpo.training.ranking_client import make_ranking_client

    with make_ranking_client(served.rewards) as client, make_progress() as bar:
        info = find_judge(client, judge)
        keep_judge(plan, info.version)
        for match in find_matches(plan):
            ask_missing(match.verdicts(info.version), match.pairs, client, info, bar, match.label)
