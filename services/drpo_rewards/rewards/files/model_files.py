"""The declaration of the files that a reward reads, for loading, `download` and `doctor`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

# Alternatives, the preferred one first. Each lists file names that are needed together. A * stands for the shards of a
# model, which its index names.
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
class ModelFiles:
    """Files that are read together from one source: a folder, or a repository of the model hub.

    A reward declares what it reads with a static method `files(**options)`. It gets the options that the reward is
    built with, and returns ModelFiles.

    Attributes:
        option: the reward's option that sets another source, e.g. "model" or "tokenizer".
        repo: the default source on the hub, as owner/name or owner/name@revision.
        required: the files that are needed, each with its alternatives.
        license: the licence of the files, e.g. "MIT".
        gigabytes: about the size of the files, in 10^9 bytes.
        optional: names of files that are read where they exist.
        subfolder: the folder inside the reward's `model` folder that may hold these files too.

    Example:
        ModelFiles("tokenizer", "google-bert/bert-base-uncased", (WORDPIECE,), "Apache-2.0", 0.001, TOKENIZER_SETTINGS)
    """

    option: str
    repo: str
    required: tuple[OneOf, ...]
    license: str
    gigabytes: float
    optional: tuple[str, ...] = ()
    subfolder: str = ""

    def source(self, options: Mapping[str, Any]) -> str:
        """Return the folder or hub id to read from, for a reward with these options.

        It is the value of `option` where that is set. Otherwise it is the folder of the reward's model if that holds
        any of the files, and `repo` if it does not.
        """
        source, model = options.get(self.option), options.get("model")
        if source is not None:
            return str(source)
        if model is not None and self.option != "model":
            folder = Path(model).expanduser() / self.subfolder
            names = {name for one_of in self.required for alternative in one_of for name in alternative}
            if folder.is_dir() and names & file_names(folder):
                return str(folder)
        return self.repo


def choose(one_of: OneOf, present: Collection[str]) -> list[str]:
    """Return the file names of the first alternative that is complete in `present`; empty if none is."""
    for alternative in one_of:
        matches = [[name for name in present if fnmatchcase(name, pattern)] for pattern in alternative]
        if all(matches):
            return [name for names in matches for name in names]
    return []


def missing(files: ModelFiles, folder: Path) -> list[str]:
    """Describe the files that a folder lacks; empty if it has them all."""
    present = file_names(folder)
    lacking = [_describe_missing(one_of, present) for one_of in files.required if not choose(one_of, present)]
    for one_of in files.required:
        for index in (name for name in choose(one_of, present) if name.endswith(".index.json")):
            shards = json.loads((folder / index).read_text("utf-8"))["weight_map"].values()
            lacking += sorted(set(shards) - present)
    return lacking


def file_names(folder: Path) -> set[str]:
    """Return the names of the files directly inside a folder."""
    return {entry.name for entry in folder.iterdir() if entry.is_file()}


def _describe_missing(one_of: OneOf, present: Collection[str]) -> str:
    """Name the missing rest of an alternative that is partly present, otherwise the first two alternatives."""
    for alternative in one_of:
        rest = [name for name in alternative if not any(fnmatchcase(other, name) for other in present)]
        if len(rest) < len(alternative):
            return " and ".join(rest)
    return " or ".join(" and ".join(alternative) for alternative in one_of[:2])
