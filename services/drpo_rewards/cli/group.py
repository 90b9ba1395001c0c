"""What all commands share: the options --debug and --version, and errors as one line."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import metadata
from typing import Any

import typer
from typer.core import TyperGroup

from drpo_rewards.cli.output import errors, fail, print_error
from drpo_rewards.errors import AuthenticationError, ConfigError, InvalidRequestError, RewardsError
from drpo_rewards.process import explain_missing
from drpo_rewards.usage import explain_usage

USERS_MISTAKES = (ConfigError, InvalidRequestError, AuthenticationError)


class Commands(TyperGroup):
    """A group of commands. An error is one line, and exit status 2 for a user's mistake or 1 for any other failure."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take --debug also after the command's name, where people write it."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(word for word in args[:end] if word != "--debug"), *args[end:]]
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Start again in Python's UTF-8 mode if the locale has another encoding: Ray needs names of files as UTF-8."""
        if sys.getfilesystemencoding().lower() != "utf-8":
            for_terminal = os.environ.get("PYTHONIOENCODING") or sys.stdout.encoding
            environment = os.environ | {"PYTHONUTF8": "1", "PYTHONIOENCODING": for_terminal}
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
        try:
            result = super().main(*args, **{**kwargs, "standalone_mode": False})
        except typer.TyperException as error:
            message, status = explain_usage(error)
            if message:
                print_error("usage", message)
            sys.exit(status)
        except typer.Abort:
            sys.exit(1)
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        _print_any_letter()
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise  # typer's own, which it shows itself
        except Exception as error:
            if ctx.params.get("debug"):
                errors.print("".join(traceback.format_exception(error)), markup=False, highlight=False, soft_wrap=True)
            _fail_with(error, has_traceback=bool(ctx.params.get("debug")))


def print_version(wanted: bool) -> None:
    """End the command with the version, if it is wanted."""
    if wanted:
        typer.echo(f"drpo-rewards {metadata.version('drpo')}")
        raise typer.Exit()


def take_options(
    debug: bool = typer.Option(False, "--debug", help="Print the traceback of an error; also after the command."),
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=print_version
    ),
) -> None:
    """Serve rewards behind the ranking API, ask a running service, or score images without one."""


def _fail_with(error: Exception, has_traceback: bool) -> None:
    if isinstance(error, RewardsError):
        fail(error.code, str(error), status=2 if isinstance(error, USERS_MISTAKES) else 1)
    if isinstance(error, ModuleNotFoundError) and (missing := explain_missing(error)):
        fail("missing_package", missing, 2)
    if isinstance(error, MemoryError):
        fail("memory", "this machine has no memory left; end other programs, or use fewer or smaller images")
    what = (str(error).strip() or "no message").splitlines()[0]
    how = "please report it with the traceback above" if has_traceback else "--debug prints the traceback to report"
    fail("fault", f"this is a fault of drpo-rewards: {type(error).__name__}: {what}; {how}")


def _print_any_letter() -> None:
    """Let a terminal or file that is not UTF-8 show what it cannot as an escape, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
