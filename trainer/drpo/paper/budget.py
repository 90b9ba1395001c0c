"""A time of training as the user writes it, and as a reader sees it."""

from __future__ import annotations

from drpo.errors import ConfigError


def parse_budget(text: str) -> float:
    """Seconds of "90m", "2h", "1.5h" or "3600".

    Raises:
        ConfigError: it is written differently, or is not positive.
    """
    number, unit = (text[:-1], text[-1]) if text[-1:] in "smh" and text else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ConfigError(f"--budget: {text!r} is no time; write 90m, 2h or a number of seconds")
    return seconds


def in_words(seconds: float) -> str:
    """A time for a reader."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
