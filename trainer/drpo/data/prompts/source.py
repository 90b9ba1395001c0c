"""What a prompt source is, and where its prompts come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drpo.config import PromptsConfig
from drpo.data.prompts.record import PromptRecord


@dataclass(frozen=True)
class RemoteFile:
    """A file that `drpo prompts download` fetches.

    Attributes:
        name: its name in the data folder. In a repository of the hub it is the path, in which "*" stands for any
            characters: shards have hashes in their names.
        url: where the file is; None: in the repository of the origin.
        sha256: of the content; None: not known, so it is not checked.
    """

    name: str
    url: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Origin:
    """Who made a set of prompts, and under which terms.

    Attributes:
        homepage: a page that describes the set.
        licence: of the prompts, as their authors state it.
        revision: the commit of the repository, or "main" if no commit is fixed.
        repository: the data set of the hub that holds the files; None: each file has a URL, or there are no files.
        files: the files to download; none for a set that this project makes itself.
    """

    homepage: str
    licence: str
    revision: str
    repository: str | None = None
    files: tuple[RemoteFile, ...] = ()


@dataclass(frozen=True)
class PromptSource:
    """One line of `PROMPT_SOURCES`.

    Attributes:
        about: one line for `drpo prompts list`.
        load: makes the prompts from the settings. It may leave `settings.tasks` to its caller.
        splits: the splits that it has; empty: it has only one set, and `prompts.split` says nothing.
        reads_path: whether it uses `prompts.path`, `prompts.column` and any `prompts.task_column`.
        task_columns: the columns that `prompts.task_column` may name if it reads no path. The first is the default.
        origin: where the prompts come from; None: the settings say it.
    """

    about: str
    load: Callable[[PromptsConfig], list[PromptRecord]]
    splits: tuple[str, ...] = ()
    reads_path: bool = False
    task_columns: tuple[str, ...] = ()
    origin: Origin | None = None
