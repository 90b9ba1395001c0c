"""What the commands share: consoles, options that several have, and how an error looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drpo_rewards.errors import RewardsError

console = Console()
errors = Console(stderr=True)

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(help="Address of the service: http://HOST:PORT or grpc://HOST:PORT.")]
ApiKey = Annotated[str | None, typer.Option(envvar="DRPO_REWARDS_API_KEY", help="Where the service asks for one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]
Prompt = Annotated[str, typer.Option(help="What the images were made from.")]
Metadata = Annotated[
    str | None, typer.Option(help="What rewards need beyond the prompt, e.g. a GenEval spec: a JSON file, or the JSON.")
]


@contextmanager
def told_errors() -> Iterator[None]:
    """Turns what this package raises into one line on stderr and exit status 1; the user needs no traceback."""
    try:
        yield
    except RewardsError as error:
        fail(error.code, str(error))
    except ModuleNotFoundError as error:
        fail("missing_package", f"{error.name} is not installed; pip install 'drpo[all]' brings what rewards need")


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Says what the command is waiting for: a spinner, or one line where nobody watches."""
    if not errors.is_terminal:
        errors.print(doing)
        yield
        return
    with errors.status(doing):
        yield


def fail(code: str, message: str) -> NoReturn:
    errors.print(f"[red]error[/red] ({code}): {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def read_metadata(given: str | None) -> dict[str, Any] | None:
    """The JSON object in a file of that name, or in the text itself."""
    if given is None:
        return None
    inline = given.lstrip().startswith("{")
    try:
        data = json.loads(given if inline else Path(given).read_text())
    except (OSError, ValueError) as error:
        what = "this is no JSON" if inline else f"cannot read {given}"
        raise typer.BadParameter(f"{what}: {error}", param_hint="--metadata") from None
    if not isinstance(data, dict):
        raise typer.BadParameter(f"{given} holds no JSON object", param_hint="--metadata")
    return data


def read_weights(given: Sequence[str] | None) -> dict[str, float] | None:
    """NAME or NAME=WEIGHT, several times, as the weights of a request."""
    weights = {}
    for text in given or ():
        name, _, weight = text.partition("=")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise typer.BadParameter(f"{text!r}: write NAME=WEIGHT with a number", param_hint="--reward") from None
    return weights or None


def import_from(folder: Path) -> None:
    """Lets this process import modules that lie in `folder`: a command has only the installed ones otherwise."""
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table; the columns in `numbers` are flush right."""
    made = Table()
    for name in columns:
        made.add_column(escape(name), justify="right" if name in numbers else "left")
    return made


def add_row(to: Table, *cells: object) -> None:
    """Adds a row of plain text: a file's name may hold what rich would take for markup."""
    to.add_row(*(escape(str(cell)) for cell in cells))


def reasons(details: Sequence[dict[str, Any] | None]) -> str:
    """What rewards say of one image, as one line."""
    return "; ".join(str(reason) for detail in details if detail for reason in detail.get("reasons", []))
