"""Read an option that is given several times, each time for a thing with a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from drpo.errors import ConfigError


class Named(Protocol):
    """What has a name, and a folder of that name in a table."""

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> str: ...


_Thing = TypeVar("_Thing", bound=Named)


def read_named(option: str, texts: Iterable[str], read: Callable[[str], _Thing]) -> list[_Thing]:
    """Reads every text of an option, in order.

    Args:
        option: its name, such as "--row".
        texts: as they were typed.
        read: reads one; raises `ConfigError` if it is wrong.

    Raises:
        ConfigError: one is wrong, or two have the same name. The message has a line for each problem.
    """
    things: list[_Thing] = []
    problems = []
    for text in texts:
        try:
            thing = read(text)
        except ConfigError as error:
            problems.append(str(error))
            continue
        if any(thing.folder.lower() == other.folder.lower() for other in things):
            problems.append(f"{option}: two are named {thing.name!r}; give each its own name")
        things.append(thing)
    if problems:
        raise ConfigError("\n".join(problems))
    return things
