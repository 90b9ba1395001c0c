"""Rows of a file, by its ending: .txt, .jsonl, .csv, .tsv or .parquet.

Text is UTF-8, with or without a byte-order mark, with line ends of any system. A .tsv has no quoting: a quotation mark
is a character like any other. A .csv has the usual quoting, so that a field may hold commas and line ends.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from drpo.data.prompts.problems import Problems
from drpo.errors import ConfigError
from drpo_rewards.reading import why_unreadable

Row = tuple[str, dict[str, Any]]
"""The position in the file, and the values by column."""

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_SAVE = "save the file as UTF-8"


def read_rows(path: Path, problems: Problems) -> Iterator[Row]:
    """The rows of a file. What cannot be read as a row is noted in `problems`.

    Raises:
        ConfigError: there is no such file, it cannot be opened, or its ending is not known.
    """
    reader = READERS.get(path.suffix.lower())
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a file of prompts")
    if reader is None:
        known = ", ".join(READERS)
        raise ConfigError(f"{path}: the ending {path.suffix or '(none)'} is not known; a prompt file ends with {known}")
    if not os.path.isfile(path):
        if os.path.exists(path):
            raise ConfigError(f"{path} is {'a folder' if os.path.isdir(path) else 'a pipe or a device'}, not a file")
        raise ConfigError(f"there is no file {path}")
    try:
        yield from reader(path, problems)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, from 1, and with their line ends."""
    content = path.read_bytes()
    for mark, encoding in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            problems.add("1", f"the file is {encoding}, not UTF-8; {_SAVE}")
            return
    content = content.removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(_LINE.findall(content), start=1):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            problems.add(
                str(number), f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not UTF-8; {_SAVE}"
            )


def _read_txt(path: Path, problems: Problems) -> Iterator[Row]:
    for number, line in read_lines(path, problems):
        if line.strip():
            yield str(number), {"prompt": line.rstrip("\r\n")}


def _read_jsonl(path: Path, problems: Problems) -> Iterator[Row]:
    for number, line in read_lines(path, problems):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_make_object)
        except _RepeatedKeyError as error:
            problems.add(str(number), f"names the key {str(error)!r} twice")
        except RecursionError:
            problems.add(str(number), "is not usable JSON: it is nested too deeply")
        except ValueError as error:
            problems.add(str(number), f"is not JSON: {why_unreadable(error)}; each line is one object")
        else:
            if isinstance(value, dict):
                yield str(number), value
            else:
                problems.add(str(number), f'must be an object such as {{"prompt": "a cat"}}, not {line.strip()[:40]!r}')


class _RepeatedKeyError(Exception):
    """A JSON object has a key twice. JSON does not say which of the two counts."""


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return made


def _read_csv(path: Path, problems: Problems) -> Iterator[Row]:
    yield from _read_table(read_lines(path, problems), problems, "", strict=True)


def _read_tsv(path: Path, problems: Problems) -> Iterator[Row]:
    hint = "; a .tsv has no quoting, so a field holds neither tabs nor line ends"
    yield from _read_table(read_lines(path, problems), problems, hint, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_table(lines: Iterator[tuple[int, str]], problems: Problems, hint: str, **options: Any) -> Iterator[Row]:
    """The rows of a table whose first line names the columns. A row's position is the line on which it begins."""
    numbers: list[int] = []  # of the lines of the present row

    def feed() -> Iterator[str]:
        for number, line in lines:
            numbers.append(number)
            yield line

    reader = csv.reader(feed(), **options)
    header: list[str] | None = None
    while True:
        numbers.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.add(str(numbers[0]), f"is not a row: {error}; what follows was not read")
            return
        position = str(numbers[0])
        if not fields:
            continue
        if header is None:
            header = [name.strip() for name in fields]
            repeated = sorted({name for name in header if name and header.count(name) > 1})
            if repeated:
                problems.add(position, f"two columns are named {' and '.join(map(repr, repeated))}")
                return
        elif len(fields) != len(header):
            problems.add(position, f"has {len(fields)} fields, but the first line names {len(header)} columns{hint}")
        else:
            yield position, dict(zip(header, fields, strict=True))


def _read_parquet(path: Path, problems: Problems) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        file = parquet.ParquetFile(path)
        pictures = [field.name for field in file.schema_arrow if _is_picture(field)]
        names = [name for name in file.schema_arrow.names if name not in pictures]
        if pictures:
            problems.hint = f"columns of bytes are not read ({', '.join(pictures)}); save texts and paths as strings"
        for batch in file.iter_batches(columns=names):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", {name: _without_nulls(value) for name, value in row.items()}
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        problems.add(f"row {number + 1}", f"cannot be read as Parquet: {str(error).splitlines()[0]}")


def _is_picture(field: Any) -> bool:
    """Whether a column holds bytes, such as encoded images, which would cost memory and are never prompts."""
    from pyarrow import types

    kinds = [field.type, *(inner.type for inner in field.flatten())]
    return any(types.is_binary(kind) or types.is_large_binary(kind) for kind in kinds)


def _without_nulls(value: Any) -> Any:
    """The value without empty fields: all rows of a Parquet structure have the same fields, with nulls."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


READERS: dict[str, Callable[[Path, Problems], Iterator[Row]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
