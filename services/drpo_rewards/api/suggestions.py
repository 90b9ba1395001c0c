"""The nearest right name for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of an error message, "; did you mean NAME?" with the most similar choice, or "" where none is similar.

    `cutoff`, 0 to 1, is how similar a choice must be.
    """
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""
