"""`doctor`: what would keep a service from starting here, as a table of what is wrong and how to mend it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from drpo_rewards.cli.common import AsJson, add_row, busy, console, import_from, table, told_errors


def doctor(
    config: Annotated[str, typer.Argument(help="A service config: a YAML file, or the name of a shipped one.")],
    resource: Annotated[
        list[str] | None,
        typer.Option(help="A custom resource that this machine will have; may be given several times."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine for a service config before anything starts: packages, files, GPUs, memory and ports.

    Downloads nothing, and of model files reads only the headers. Exit status 1 where something is wrong.
    """
    import_from(Path(config).resolve().parent)
    import_from(Path.cwd())
    with told_errors():
        from drpo_rewards.serving.operate.doctor import examine

        with busy("looking"):
            findings = examine(config, resource or ())
    if as_json:
        console.print_json(data=[dataclasses.asdict(finding) for finding in findings])
    else:
        made = table("check", "about", "state", "found", "how to mend it")
        for column in made.columns:
            column.overflow = "fold"
        for one in findings:
            add_row(made, one.check, one.about, one.state, one.found, one.mend)
            made.rows[-1].style = "red" if one.state == "wrong" else "dim" if one.state == "skipped" else None
        console.print(made)
        wrong = sum(one.state == "wrong" for one in findings)
        console.print(f"{wrong} of {len(findings)} checks found something wrong" if wrong else "nothing is wrong")
    if any(one.state == "wrong" for one in findings):
        raise typer.Exit(1)
