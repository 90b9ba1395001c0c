"""The command line: `drpo demo | train | sample | eval | judge | paper | report | runs | compare | profile | ...`.

Commands import what they need when they run, so that `drpo --help` stays fast.
"""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from drpo.cli import doctor, evaluate, export, judge, paper, preferences, profile, prompts, report, runs, sample, train
from drpo.cli.common import Application, SettingsCommand, say


def print_version(wanted: bool) -> None:
    """Ends the command with the version, if it is wanted."""
    if wanted:
        say(f"drpo {metadata.version('drpo')}")
        raise typer.Exit()


app = Application(
    name="drpo",
    help="Drifting Preference Optimization of one-step text-to-image generators.",
    epilog="With --debug anywhere in a command, an error also prints its traceback.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
app.command("demo", cls=SettingsCommand)(train.demo)
app.command("train", cls=SettingsCommand)(train.train)
app.command("sample")(sample.sample)
app.command("eval", cls=SettingsCommand)(evaluate.evaluate)
app.command("judge", cls=SettingsCommand)(judge.judge)
app.command("paper", cls=SettingsCommand)(paper.paper)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("runs")(runs.runs)
app.command("compare")(runs.compare)
app.command("profile", cls=SettingsCommand)(profile.profile)
app.command("doctor", cls=SettingsCommand)(doctor.doctor)
app.add_typer(prompts.app, name="prompts")
app.add_typer(preferences.app, name="preferences")


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Take the options of all commands."""


@app.command(
    "shapes", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def shapes(context: typer.Context) -> None:
    """The embedded model: `drpo shapes pretrain` trains it from scratch, `drpo shapes render` draws examples."""
    from drpo.shapes.cli import app as shapes_app

    status = shapes_app(args=context.args, prog_name="drpo shapes", standalone_mode=False)
    if isinstance(status, int):
        raise typer.Exit(status)


__all__ = ["app"]
