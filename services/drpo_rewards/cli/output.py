"""Output of the commands: consoles, tables, progress, and errors in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from drpo_rewards.findings import Finding
from drpo_rewards.screen import make_console, printable

console = make_console("stdout")
errors = make_console("stderr")


def fail(code: str, message: str, status: int = 1) -> NoReturn:
    """Print an error and exit.

    Args:
        code: names the kind of error, for scripts.
        message: one line, or one for each mistake.
        status: the exit status; 2 for a user's mistake.
    """
    print_error(code, message)
    raise typer.Exit(status)


def print_error(code: str, message: str) -> None:
    """Print an error as `fail` does."""
    for line in message.splitlines() or [""]:
        errors.print(f"[red]error[/red] ({code}): {escape(line)}", highlight=False, soft_wrap=True)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print what a check has found, in one line each."""
    for finding in findings:
        color = {"wrong": "red", "warning": "yellow"}.get(finding.state, "default")
        place = escape(f"({finding.check}) {finding.about}: {finding.found}; {finding.fix}".strip("; "))
        errors.print(f"[{color}]{finding.state}[/] {place}", highlight=False, soft_wrap=True)


@contextmanager
def busy(activity: str) -> Iterator[None]:
    """Show what the command is doing: with a spinner on a terminal, otherwise as one line."""
    if not errors.is_terminal:
        errors.print(activity, markup=False, highlight=False)
        yield
        return
    with errors.status(escape(activity)):
        yield


@contextmanager
def progress_bar(activity: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal. The yielded function takes how many are done, and of how many."""
    columns = TextColumn(escape(activity)), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """Create an empty table. The columns in `numbers` are aligned to the right."""
    empty = Table()
    for name in columns:
        empty.add_column(escape(name), justify="right" if name in numbers else "left")
    return empty


def add_row(to: Table, *cells: object) -> None:
    """Add a row of plain text. Without escaping, rich would read a file name with brackets as markup."""
    to.add_row(*(escape(printable(str(cell))) for cell in cells))


def join_reasons(details: Sequence[dict[str, Any] | None]) -> str:
    """Join the reasons that rewards give for the scores of one image into one line."""
    return "; ".join(str(reason) for detail in details if detail for reason in detail.get("reasons", []))
