"""`doctor`: check what would keep a service from starting here, and print how to fix it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from drpo_rewards.cli.local_reward import import_from, stdout_for_results
from drpo_rewards.cli.options import (
    ConfigArgument,
    GrpcPortOption,
    HostOption,
    JsonOption,
    PortOption,
    read_listeners,
)
from drpo_rewards.cli.output import add_row, busy, console, table


def doctor(
    config: ConfigArgument = "shapes",
    host: HostOption = None,
    port: PortOption = None,
    grpc_port: GrpcPortOption = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(help="A custom Ray resource that this machine will have; may be given several times."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine for a service before anything starts: config, packages, files, GPUs, memory, ports, folders.

    Downloads nothing, and reads only the headers of model files. The exit status is 2 if something is wrong. `serve`
    makes the same checks before it starts.
    """
    import_from(Path(config).resolve().parent)
    import_from(Path.cwd())
    listeners = read_listeners(host, port, grpc_port)
    with busy("checking"), stdout_for_results():
        from drpo_rewards.serving.operate.doctor import examine

        findings = examine(config, resource or (), overrides=listeners)
    wrong = sum(finding.state == "wrong" for finding in findings)
    if as_json:
        console.print_json(data=[dataclasses.asdict(finding) for finding in findings])
    else:
        checks = table("check", "about", "state", "found", "how to fix it")
        for column in checks.columns:
            column.overflow = "fold"
        styles = {"wrong": "red", "warning": "yellow", "skipped": "dim"}
        for finding in findings:
            add_row(checks, finding.check, finding.about, finding.state, finding.found, finding.fix)
            checks.rows[-1].style = styles.get(finding.state)
        console.print(checks)
        warnings = sum(finding.state == "warning" for finding in findings)
        summary = f"{wrong} of {len(findings)} checks found something wrong" if wrong else "nothing is wrong"
        console.print(f"{summary}; {warnings} warned" if warnings else summary)
    if wrong:
        raise typer.Exit(2)
