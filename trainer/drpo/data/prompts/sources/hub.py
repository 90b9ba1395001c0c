"""Prompts from a column of any data set of the Hugging Face hub, or of a folder in the layout of one.

The `datasets` library downloads the split on first use, and reads it from its cache afterwards. Without a network, set
HF_HUB_OFFLINE=1, or it tries for half a minute to reach the hub first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from drpo.config import PromptsConfig
from drpo.data.prompts.problems import Problems
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.records import make_records
from drpo.data.prompts.rows import Row
from drpo.data.prompts.source import PromptSource
from drpo.errors import ConfigError


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """Reads `settings.column` of the split `settings.split` of `settings.path`, ORG/NAME or ORG/NAME@REVISION.

    Raises:
        ConfigError: there is no such data set, split or column, or rows of it are not prompts.
    """
    assert settings.path is not None  # `load_prompts` has checked it
    data = _load_split(settings.path, settings.split)
    columns = data.column_names
    for key in ("column", "task_column"):
        if getattr(settings, key) not in (None, *columns):
            raise ConfigError(
                f"prompts.{key}: {settings.path} has no column {getattr(settings, key)!r}; "
                f"choose from {', '.join(columns)}"
            )
    kept = [name for name in columns if _is_plain(data.features[name])]
    problems = Problems(f"{settings.path}, split {settings.split}")
    return make_records(_rows(data.select_columns(kept)), problems, settings)


def _load_split(path: str, split: str) -> Any:
    import datasets

    bars = datasets.is_progress_bar_enabled()
    if os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") == "1":
        datasets.disable_progress_bars()
    name, _, revision = path.partition("@")
    try:
        return datasets.load_dataset(name, split=split, revision=revision or None)
    except Exception as error:  # the library raises many kinds: of the hub, of the network, of parsers
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"cannot load the split {split!r} of {path} from the hub: {reason}") from error
    finally:
        if bars:
            datasets.enable_progress_bars()


def _is_plain(feature: Any) -> bool:
    """Whether a column is neither pictures nor sound, which would be decoded for nothing."""
    return getattr(feature, "dtype", None) not in ("binary", "large_binary") and type(feature).__name__ not in (
        "Image",
        "Audio",
        "Video",
        "Pdf",
    )


def _rows(data: Any) -> Iterator[Row]:
    """The rows, with the names of classes in place of their numbers."""
    names = {column: feature.names for column, feature in data.features.items() if hasattr(feature, "int2str")}
    for number, row in enumerate(data, start=1):
        classes = {column: names[column][row[column]] for column in names if row[column] is not None}
        yield f"row {number}", {**row, **classes}


SOURCE = PromptSource(
    "a data set of the hub: prompts.path ORG/NAME, prompts.split, prompts.column", load, reads_path=True
)
