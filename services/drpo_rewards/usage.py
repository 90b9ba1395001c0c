"""Mistakes in a command line as one line, where typer draws a box that breaks a path in two."""

from __future__ import annotations

from typing import Any

import typer


def explain_usage(error: typer.TyperException) -> tuple[str, int]:
    """Return what is wrong in the command line, and the exit status.

    The text is empty where typer has printed the help of a group because no command was named.
    """
    fault: Any = error  # typer tells type checkers less than it gives
    if type(error).__name__ == "NoArgsIsHelpError":
        return "", fault.exit_code
    message = " ".join(fault.format_message().replace("Value error, ", "").split()).removesuffix(".")
    context = getattr(error, "ctx", None)
    return f"{message}; `{context.command_path} --help` tells more" if context else message, fault.exit_code
