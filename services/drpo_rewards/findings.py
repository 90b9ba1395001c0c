"""What a check before the start has found: one line of a table, of both `doctor` commands and of every start.

This file is below both packages' checks, so that `drpo` and `drpo-rewards` find and print the same things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "wrong", "warning", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        check: what was checked, e.g. "files" or "GPU memory".
        about: the reward or the thing that was checked.
        state: "ok"; "wrong": it would fail; "warning": it may fail or be slow, and starts; "skipped".
        found: what the check found.
        fix: what to do if the state is "wrong" or "warning".

    Example:
        Finding("ports", "http_port", "wrong", "127.0.0.1:8000 is not available: Address already in use",
                "stop the process that uses it, or set another http_port")
    """

    check: str
    about: str
    state: State
    found: str
    fix: str = ""

    @property
    def named(self) -> str:
        """What the check found, after the name of the thing that was checked unless `found` names it already."""
        return self.found if self.about in self.found else f"{self.about}: {self.found}"
