"""`drpo prompts`: list the sources of prompts, download public sets, look at prompts."""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from drpo.cli.common import Application, console
from drpo.config import PromptsConfig
from drpo.errors import ConfigError

if TYPE_CHECKING:
    from drpo.data.prompts.source import Origin

app = Application(no_args_is_help=True, help="Sources of prompts: list them, download public sets, look at prompts.")


def _check_names(given: list[str] | str) -> list[str] | str:
    from drpo.data.prompts import PROMPT_SOURCES

    for name in [given] if isinstance(given, str) else given:
        if name not in PROMPT_SOURCES:
            raise typer.BadParameter(f"there is no source {name!r}; choose from {', '.join(PROMPT_SOURCES)}")
    return given


Name = Annotated[str, typer.Argument(callback=_check_names, help="A source; `drpo prompts list` shows all.")]
Names = Annotated[list[str], typer.Argument(callback=_check_names, help="Sets; `drpo prompts list` shows all.")]


@app.command("list")
def list_sources() -> None:
    """List the sources: what they are, their splits and licence, and whether they are on this machine."""
    from drpo.data.prompts import PROMPT_SOURCES, find_source

    table = Table("name", Column(overflow="fold"), box=None, show_header=False)
    for name in PROMPT_SOURCES:
        source = find_source(name)
        lines = [source.about]
        if source.splits:
            lines.append(f"prompts.split: {', '.join(source.splits)}")
        if source.origin is not None:
            lines.append(f"{source.origin.homepage} at {source.origin.revision}")
            lines.append(f"licence: {source.origin.licence}")
            lines.append(_describe_presence(name, source.origin))
        _add_row(table, name, "\n".join(lines))
    console.print(table)


@app.command()
def download(names: Names) -> None:
    """Download public sets into $DRPO_DATA, or without it into the hub's cache. Afterwards no network is needed.

    Prints the SHA-256 of each file, and what it was compared with.
    """
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "0"  # read when the hub's library is imported
    from drpo.data.prompts import find_source
    from drpo.data.prompts.downloads import data_folder
    from drpo.data.prompts.downloads import download as fetch

    origins = {name: find_source(name).origin for name in names}
    for name, origin in origins.items():
        if origin is None:
            raise ConfigError(f"{name} has no files of its own to download: its settings name the file or data set")
    for name, origin in origins.items():
        assert origin is not None
        if not origin.files:
            _print(f"{name}: made here, so there is nothing to download")
            continue
        table = Table(box=None)
        for column in ("file", "MB", "SHA-256", "compared with"):
            table.add_column(column, overflow="fold")
        for file in fetch(name, origin):
            _add_row(table, file.name, f"{file.bytes / 1e6:.2f}", file.sha256, file.compared_with)
        console.print(table)
        _print(f"{name} is in {data_folder() / name}. Licence: {origin.licence}")


@app.command()
def show(
    name: Name,
    split: Annotated[str, typer.Option(help="As prompts.split.")] = "train",
    path: Annotated[str | None, typer.Option(help="As prompts.path.")] = None,
    column: Annotated[str | None, typer.Option(help="As prompts.column.")] = None,
    task_column: Annotated[str | None, typer.Option(help="As prompts.task_column.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeat it for more.")] = None,
    count: Annotated[int, typer.Option(min=0, help="Prompts to print for each task.")] = 3,
) -> None:
    """Load prompts as a run would, and print where they come from, how many there are, and some of each task."""
    from drpo.data.prompts import find_source, load_prompts

    _show_notes()
    origin = find_source(name).origin
    if origin is not None:
        _print(f"{origin.homepage} at {_find_revision(name) or origin.revision}. Licence: {origin.licence}")
    records = load_prompts(
        PromptsConfig(
            source=name,
            split=split,
            path=path,
            column=column,
            task_column=task_column,
            tasks=tuple(task) if task else None,
        )
    )
    _print(f"{len(records)} prompts, {len({record.prompt for record in records})} different ones")
    for one, size in Counter(record.task for record in records).items():
        _print(f"{one or 'without a task'}: {size}")
        for record in [record for record in records if record.task == one][:count]:
            _print(f"  {record.prompt}")


def _describe_presence(name: str, origin: Origin) -> str:
    from drpo.data.prompts.downloads import find_files

    if not origin.files:
        return "made here: nothing to download"
    try:
        for file in origin.files:
            find_files(name, origin, file.name)
    except ConfigError:
        return f"not on this machine: drpo prompts download {name}"
    return "on this machine"


def _show_notes() -> None:
    """Prints what loaders log, such as the rule by which a test set was chosen."""
    log = logging.getLogger("drpo.data")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [logging.StreamHandler()]


def _find_revision(name: str) -> str | None:
    from drpo.data.prompts.downloads import read_receipt

    receipt = read_receipt(name)
    return receipt["revision"] if receipt is not None else None


def _add_row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))  # texts of data, in which brackets are no markup


def _print(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
