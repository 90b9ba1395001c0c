"""`drpo eval`."""

from __future__ import annotations

import typer


def evaluate(context: typer.Context) -> None:
    """Compare an adapter with the base on held-out prompts, with matched seeds."""
