"""One preference: a prompt, the images that people chose for it, and those that they rejected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Picture = Path | bytes
"""An image: its file, or the content of one."""

Side = Literal["chosen", "rejected"]


@dataclass(frozen=True)
class Preference:
    """One row of a preference set.

    Attributes:
        position: file and row, for error messages.
        prompt: the text that the images were made for.
        chosen, rejected: at least one image each. Every chosen one is preferred to every rejected one.
    """

    position: str
    prompt: str
    chosen: tuple[Picture, ...]
    rejected: tuple[Picture, ...]


@dataclass(frozen=True)
class Part:
    """A file of a preference set.

    Attributes:
        name: the file, for error messages.
        read: reads its preferences, in the same order each time.
    """

    name: str
    read: Callable[[], Iterator[Preference]]
