"""Where commands print. A closed terminal, a `| head` that has read enough, or a full disk ends none of them."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
USUAL_WIDTH = 80
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but a tab and a line's end


def make_console(stream: str, **options: Any) -> Console:
    """Make a console that prints to "stdout" or "stderr".

    Args:
        stream: which of the two.
        options: of rich's Console.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) == 0:  # rich would take it, and print nothing
        options = {"width": USUAL_WIDTH, **options}
    stands_in: Any = Stream(stream)
    return _Console(file=stands_in, **options)


_lost: list[str] = []


def why_lost() -> str:
    """Return why results were not written to stdout, because a disk is full; "" if none were lost."""
    return _lost[0] if _lost else ""


class _Console(Console):
    """A console on which no text from elsewhere drives the terminal: only rich's own control characters reach it."""

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        for segment in super().render(*args, **kwargs):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def printable(text: str) -> str:
    """Write control characters as escapes. A table needs this for its cells before it measures them."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Stream:
    """sys.stdout or sys.stderr, whatever stands there at the moment. What cannot be written is left out."""

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        """Write a text, if that is possible."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written, if that is possible."""
        self._try("flush")

    @property
    def _stream(self) -> Any:
        """The stream; None if the process was started without it."""
        stream = getattr(sys, self._name)
        return getattr(stream, "rich_proxied_file", stream)  # while a progress bar moves, rich stands in for it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, method: str, *arguments: str) -> None:
        stream = self._stream
        if stream is None or getattr(stream, "closed", False):
            return
        try:
            getattr(stream, method)(*arguments)
        except OSError as error:  # from here on into nothing, because Python tries once more at its end, and complains
            if self._name == "stdout" and error.errno in FULL:
                _lost.append(str(error.strerror))
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
