"""`doctor`: check what would keep a service from starting here, and print how to fix it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from drpo_rewards.cli.local_reward import import_from
from drpo_rewards.cli.options import JsonOption
from drpo_rewards.cli.output import add_row, busy, console, exit_on_error, table


def doctor(
    config: Annotated[str, typer.Argument(help="A service config: a YAML file, or the name of a shipped one.")],
    resource: Annotated[
        list[str] | None,
        typer.Option(help="A custom Ray resource that this machine will have; may be given several times."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine for a service config before anything starts: packages, files, GPUs, memory and ports.

    Downloads nothing, and reads only the headers of model files. The exit status is 1 if something is wrong.
    """
    import_from(Path(config).resolve().parent)
    import_from(Path.cwd())
    with exit_on_error():
        from drpo_rewards.serving.operate.doctor import examine

        with busy("checking"):
            findings = examine(config, resource or ())
    wrong = sum(finding.state == "wrong" for finding in findings)
    if as_json:
        console.print_json(data=[dataclasses.asdict(finding) for finding in findings])
    else:
        checks = table("check", "about", "state", "found", "how to fix it")
        for column in checks.columns:
            column.overflow = "fold"
        styles = {"wrong": "red", "skipped": "dim"}
        for finding in findings:
            add_row(checks, finding.check, finding.about, finding.state, finding.found, finding.fix)
            checks.rows[-1].style = styles.get(finding.state)
        console.print(checks)
        console.print(f"{wrong} of {len(findings)} checks found something wrong" if wrong else "nothing is wrong")
    if wrong:
        raise typer.Exit(1)
