"""Prompts from a file with one JSON object per line.

    {"prompt": "a photo of a cat", "task": "animals", "metadata": {"source": "mine"}}

`metadata` and `task` are optional. GenEval's files (evaluation_metadata.jsonl) can be used unchanged: a line without
`metadata` but with GenEval's `include` is itself the metadata, and its `tag` is the task.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drpo.config import PromptsConfig
from drpo.data.prompts.record import PromptRecord
from drpo.errors import ConfigError


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """Reads every line of `settings.path`, in the order of the file; empty lines are skipped.

    Raises:
        ConfigError: there is no such file, or a line is not an object with a prompt.
    """
    if settings.path is None:
        raise ConfigError("prompts.path is not set: the source jsonl needs a file")
    path = Path(settings.path)
    if not path.is_file():
        raise ConfigError(f"prompts.path: there is no file {path}")
    with path.open(encoding="utf-8") as lines:
        return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(line: str, position: str) -> PromptRecord:
    """The record in a line. `position` is its file and number, for error messages."""
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{position} is not JSON: {error}") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str) or not entry["prompt"].strip():
        raise ConfigError(f'{position} must be an object whose "prompt" is a text that is not empty')
    metadata = entry.get("metadata", entry if "include" in entry else None)
    if metadata is not None and not isinstance(metadata, dict):
        raise ConfigError(f'{position}: "metadata" must be an object')
    return PromptRecord(entry["prompt"], metadata, str(entry.get("task") or (metadata or {}).get("tag") or ""))
