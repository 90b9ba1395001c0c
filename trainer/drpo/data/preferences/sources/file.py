"""Preferences from a table: .jsonl, .csv, .tsv or .parquet with the columns prompt, chosen and rejected.

    {"prompt": "a photo of a cat", "chosen": "cat/1.png", "rejected": ["cat/2.png", "cat/3.png"]}

`chosen` and `rejected` are a path or a list of paths, relative to the folder of the table.
"""

from __future__ import annotations

import filecmp
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drpo.config import OfflineConfig
from drpo.data.preferences.record import Part, Preference
from drpo.data.preferences.source import PreferenceSource
from drpo.data.prompts.problems import Problems, find_text_problem
from drpo.data.prompts.rows import read_rows
from drpo.errors import ConfigError


def read_preferences(settings: OfflineConfig) -> list[Preference]:
    """Every row of the table.

    Raises:
        ConfigError: there is no such file, or rows are wrong; one line for each.
    """
    if settings.path is None:
        raise ConfigError("offline.path is not set: the source file needs a table with prompt, chosen and rejected")
    path = Path(settings.path)
    problems = Problems(str(path))
    preferences = []
    try:
        for position, row in read_rows(path, problems):
            found = _read_row(f"{path}:{position}", row, path.parent)
            if isinstance(found, Preference):
                preferences.append(found)
            else:
                problems.add(position, found)
    except ConfigError as error:
        raise ConfigError(f"offline.path: {error}") from error
    problems.raise_if_any()
    return preferences


def _read_row(position: str, row: dict[str, Any], folder: Path) -> Preference | str:
    """The preference in a row, or what is wrong with the row."""
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        return f'"prompt" must be a text that is not empty; the row has {", ".join(map(str, row)) or "nothing"}'
    if problem := find_text_problem(prompt):
        return f'"prompt" {problem}'
    sides = []
    for name in ("chosen", "rejected"):
        given = row.get(name)
        paths = [given] if isinstance(given, str) else given
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path for path in paths):
            return f'"{name}" must be the path of an image or a list of such paths, not {_shorten(given)}'
        files = tuple(folder / path for path in paths)
        for path, file in zip(paths, files, strict=True):
            if not os.path.isfile(file):
                return f'"{name}": there is no file {path!a} in {folder}'
        sides.append(files)
    chosen, rejected = sides
    for one, other in itertools.product(chosen, rejected):
        if one == other:
            return f"{one.name} is both chosen and rejected"
        if filecmp.cmp(one, other, shallow=False):  # whatever their paths; files of other sizes are not read
            return f"{one.name} is chosen and {other.name} is rejected, but they are the same picture"
    return Preference(position, prompt, chosen, rejected)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _identify(settings: OfflineConfig) -> str:
    """The content of the table, and size and time of every image."""
    digest = hashlib.sha256(Path(settings.path or "").read_bytes())
    for preference in read_preferences(settings):
        for picture in (*preference.chosen, *preference.rejected):
            assert isinstance(picture, Path)
            found = picture.stat()
            digest.update(f"{found.st_size}/{found.st_mtime_ns};".encode())
    return digest.hexdigest()


def _count_images(settings: OfflineConfig) -> int:
    """The images of all rows. One that several rows name may be encoded once for each."""
    return sum(len(one.chosen) + len(one.rejected) for one in read_preferences(settings))


def _open_parts(settings: OfflineConfig) -> list[Part]:
    def read() -> Iterator[Preference]:
        return iter(read_preferences(settings))

    return [Part(str(settings.path), read)]


SOURCE = PreferenceSource(
    about="a table with the columns prompt, chosen and rejected, the last two with paths of images: offline.path",
    read_prompts=lambda settings: [preference.prompt for preference in read_preferences(settings)],
    count_images=_count_images,
    open_parts=_open_parts,
    identify=_identify,
)
