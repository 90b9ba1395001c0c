"""Pick-a-Pic v2: pairs of images that users of a web site generated, and which of the two they liked better.

A row has the images `jpg_0` and `jpg_1`, the `caption`, and `label_0`: 1 if the first image was preferred, 0 if the
second was, 0.5 for a tie. Left out are ties, rows whose `has_label` is false, and rows whose caption is empty.

The rows are streamed from parquet files, of a folder or of the hub: the split train alone has 959,040 rows.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drpo.config import OfflineConfig
from drpo.data.preferences.record import Part, Preference
from drpo.data.preferences.source import PreferenceSource
from drpo.data.prompts.problems import Problems, find_text_problem
from drpo.errors import ConfigError

REPOSITORY = "yuvalkirstain/pickapic_v2"
COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "has_label")

_TRAIN_ROWS = 959_040
_SPLIT_OF_FILE = re.compile(r"(.+?)-\d+-of-\d+")


def _find_files(settings: OfflineConfig) -> list[Path] | None:
    """The parquet files of the split in a folder; None: the data are on the hub.

    Raises:
        ConfigError: the folder has no such files.
    """
    if settings.path is None or not os.path.exists(settings.path):
        if settings.path is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", settings.path):
            raise ConfigError(
                f"offline.path: there is no folder {settings.path}; give a folder of parquet files, or a data set of "
                "the hub (ORG/NAME)"
            )
        return None
    folder = Path(settings.path)
    files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else [folder]
    splits = {file: match[1] for file in files if (match := _SPLIT_OF_FILE.match(file.stem))}
    if splits:
        files = [file for file in files if splits.get(file) == settings.split]
    if not files:
        has = f"its files are of {', '.join(sorted(set(splits.values())))}" if splits else "it has no parquet file"
        raise ConfigError(f"offline.path: there is nothing of the split {settings.split!r} in {folder}: {has}")
    return files


def _read_prompts(settings: OfflineConfig) -> list[str] | None:
    from pyarrow import ArrowException, parquet

    files = _find_files(settings)
    if files is None:
        return None
    prompts = []
    for path in files:
        problems = Problems(str(path))
        try:
            columns = parquet.read_schema(path).names
            missing = [name for name in COLUMNS if name not in columns]
            if missing:
                problems.add("row 1", f"there is no column {', '.join(missing)}; the file has {', '.join(columns)}")
            else:
                table = parquet.read_table(path, columns=["caption", "label_0", "has_label"])
                prompts += [row["caption"] for row in table.to_pylist() if _is_preference(row)]
        except (ArrowException, OSError) as error:
            problems.add("row 1", f"cannot be read as Parquet: {_first_line(error)}")
        problems.raise_if_any()
    return prompts


def _count_images(settings: OfflineConfig) -> int | None:
    """Two images for each preference. Of a data set on the hub only the size of the public split `train` is known."""
    prompts = _read_prompts(settings)
    if prompts is not None:
        return 2 * len(prompts)
    return 2 * _TRAIN_ROWS if settings.path is None and settings.split == "train" else None


def _open_parts(settings: OfflineConfig) -> list[Part]:
    import datasets

    files = _find_files(settings)
    if files is not None:
        where = ", ".join(str(file) for file in files[:1])
        arguments: dict[str, Any] = {"path": "parquet", "split": "train", "data_files": [str(file) for file in files]}
    else:
        where, _, revision = (settings.path or REPOSITORY).partition("@")
        arguments = {"path": where, "split": settings.split, "revision": revision or None}
    try:
        rows = datasets.load_dataset(**arguments, streaming=True)
        missing = [name for name in COLUMNS if rows.column_names is not None and name not in rows.column_names]
    except Exception as error:  # the library raises many kinds: of the hub, of the network, of parsers
        raise ConfigError(f"offline.path: cannot read {where}: {_first_line(error)}") from error
    if missing:
        raise ConfigError(f"offline.path: {where} has no column {', '.join(missing)}")
    rows, count = rows.select_columns(list(COLUMNS)), rows.num_shards
    names = [str(file) for file in files or ()] or [f"{where} ({settings.split}, file {i + 1})" for i in range(count)]
    return [_open_part(name, rows.shard(num_shards=count, index=index)) for index, name in enumerate(names)]


def _open_part(name: str, rows: Any) -> Part:
    def read() -> Iterator[Preference]:
        number = 0
        try:
            for number, row in enumerate(rows, start=1):
                if _is_preference(row):
                    yield _read_row(f"{name}:row {number}", row)
        except ConfigError:
            raise
        except Exception as error:  # of the hub, of the network, of the parser
            raise ConfigError(f"{name}:row {number + 1}: cannot be read: {_first_line(error)}") from error

    return Part(name, read)


def _is_preference(row: dict[str, Any]) -> bool:
    caption = row["caption"]
    if not caption or not caption.strip() or find_text_problem(caption) is not None:
        return False
    return bool(row["has_label"]) and row["label_0"] in (0, 1)


def _read_row(position: str, row: dict[str, Any]) -> Preference:
    pictures = []
    for name in ("jpg_0", "jpg_1"):
        picture = row[name].get("bytes") if isinstance(row[name], dict) else row[name]
        if not isinstance(picture, bytes) or not picture:
            raise ConfigError(f'{position}: "{name}" holds no image')
        pictures.append(picture)
    chosen, rejected = pictures if row["label_0"] == 1 else reversed(pictures)
    return Preference(position, row["caption"], (chosen,), (rejected,))


def _identify(settings: OfflineConfig) -> str:
    """Size and time of every file, or the name and revision of the data set on the hub."""
    files = _find_files(settings)
    if files is None:
        return f"{settings.path or REPOSITORY} {settings.split}"
    found = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


SOURCE = PreferenceSource(
    about=f"pairs of images with the choices of users: a folder of parquet files, or {REPOSITORY} on the hub",
    read_prompts=_read_prompts,
    count_images=_count_images,
    open_parts=_open_parts,
    identify=_identify,
)
