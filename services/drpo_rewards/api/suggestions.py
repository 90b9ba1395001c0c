"""Suggestions of valid names for unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean NAME?" with the most similar choice, to end an error message; "" if none is similar.

    Args:
        name: the unknown name.
        choices: the valid names.
        cutoff: how similar a choice must be, 0 to 1.
    """
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""
