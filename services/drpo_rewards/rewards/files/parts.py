"""Which files a reward reads, and from where: the one declaration that loading, downloading and checking share."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

# Alternatives, the preferred one first. Each is names that are needed together; a * stands for the pieces of a model
# whose index says what they are called.
OneOf = tuple[tuple[str, ...], ...]

CONFIG: OneOf = (("config.json",),)
WEIGHTS: OneOf = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)
BPE: OneOf = (("tokenizer.json",), ("vocab.json", "merges.txt"))
WORDPIECE: OneOf = (("vocab.txt",), ("tokenizer.json",))
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Part:
    """Files that are read together from one place: a folder, or a repository of the model hub.

    A reward says what it reads with a static method `parts(**options)`, which gets the options that it is built with.
    """

    option: str  # of the reward: names another place
    repo: str  # the public place, as owner/name or owner/name@revision
    files: tuple[OneOf, ...]
    license: str
    gigabytes: float  # of the files, about
    extra: tuple[str, ...] = ()  # files that are read where there are any
    inside: str = ""  # folder below the reward's `model` where these files may lie as well

    def place(self, options: Mapping[str, Any]) -> str:
        """The folder or repository to read from: the option's, or the model's folder if any of the files is there."""
        given, model = options.get(self.option), options.get("model")
        if given is not None:
            return str(given)
        if model is not None and self.option != "model":
            folder = Path(model).expanduser() / self.inside
            names = {name for wanted in self.files for alternative in wanted for name in alternative}
            if folder.is_dir() and names & listed(folder):
                return str(folder)
        return self.repo


def choose(wanted: OneOf, there: Collection[str]) -> list[str]:
    """Names of the first alternative that is wholly `there`; empty where none is."""
    for alternative in wanted:
        found = [[name for name in there if fnmatchcase(name, pattern)] for pattern in alternative]
        if all(found):
            return [name for names in found for name in names]
    return []


def missing(part: Part, folder: Path) -> list[str]:
    """What the part's files lack in a folder, in words; empty where all of them are there."""
    there = listed(folder)
    lacking = [_said(wanted, there) for wanted in part.files if not choose(wanted, there)]
    for wanted in part.files:
        for index in (name for name in choose(wanted, there) if name.endswith(".index.json")):
            pieces = json.loads((folder / index).read_text())["weight_map"].values()
            lacking += sorted(set(pieces) - there)
    return lacking


def listed(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_file()}


def _said(wanted: OneOf, there: Collection[str]) -> str:
    """What is missing: the rest of an alternative that is partly there, else all alternatives."""
    for alternative in wanted:
        rest = [name for name in alternative if not any(fnmatchcase(one, name) for one in there)]
        if len(rest) < len(alternative):
            return " and ".join(rest)
    return " or ".join(" and ".join(alternative) for alternative in wanted[:2])
