"""Everything that is wrong with a file, collected, so that one error tells all of it."""

from __future__ import annotations

import json
import sys
from typing import Any

from drpo.errors import ConfigError

MOST_SHOWN = 20


class Problems:
    """The problems of one file.

    Args:
        file: its path, or another name of the data.

    Attributes:
        hint: what may explain the problems; told after them.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.hint = ""
        self._lines: list[str] = []

    def add(self, position: str, problem: str) -> None:
        """Notes a problem. `position` is a line number, or such as "row 7" where there are no lines."""
        self._lines.append(f"{self.file}:{position}: {problem}")

    def raise_if_any(self) -> None:
        """Raises a ConfigError with one line per problem.

        Raises:
            ConfigError: there are problems. It shows the first 20 of them and the number of the others.
        """
        if not self._lines:
            return
        shown, rest = self._lines[:MOST_SHOWN], len(self._lines) - MOST_SHOWN
        if rest > 0:
            shown = [*shown, f"{self.file}: {rest} more {'problem' if rest == 1 else 'problems'}"]
        raise ConfigError("\n".join([*shown, f"{self.file}: {self.hint}"] if self.hint else shown))


def find_text_problem(text: str) -> str | None:
    """What makes a text useless as a prompt or task: a NUL, or half of a character; None if nothing does."""
    if "\0" in text:
        return "holds a NUL character"
    return find_half_character(text)


def find_half_character(text: str) -> str | None:
    """Where a text has half of a character, which no tokenizer takes and no file holds; None if it has none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"holds half of a character (the lone surrogate \\u{ord(text[error.start]):04x})"
    return None


def find_unknown_byte(text: str) -> tuple[str, str] | None:
    """Where a text of the command line holds a byte that was not understood, and what to do; None if it holds none.

    Python keeps such bytes, from 0x80 to 0xff, as halves of characters.
    """
    code = next((ord(letter) for letter in text if 0xDC80 <= ord(letter) <= 0xDCFF), None)
    if code is None:
        return None
    encoding, byte = sys.getfilesystemencoding(), f"the byte \\x{code - 0xDC00:02x}"
    if encoding == "utf-8":
        return f"holds {byte}, which is not UTF-8", "correct or remove it"
    return f"holds {byte}, which the locale ({encoding}) does not know", "set LC_ALL=C.UTF-8 or PYTHONUTF8=1"


def find_json_problem(value: Any) -> str | None:
    """What keeps a value from being sent as JSON; None if nothing does."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"cannot be sent as JSON: {error}"
    return find_text_problem(text)
