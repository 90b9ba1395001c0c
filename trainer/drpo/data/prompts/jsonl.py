"""Prompts from a file with one JSON object a line: {"prompt": ..., "metadata": {...}, "task": ...}.

`metadata` and `task` may be left out. GenEval's own files (evaluation_metadata.jsonl) can be given as they are: a
line without `metadata` that has GenEval's `include` is a specification itself, and its `tag` is the task.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drpo.config import PromptsConfig
from drpo.data.prompts.record import PromptRecord
from drpo.errors import ConfigError


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """Every line of `settings.path`, in the order of the file; empty lines are skipped."""
    if settings.path is None:
        raise ConfigError("prompts.path: the jsonl source needs the path of its file")
    path = Path(settings.path)
    if not path.is_file():
        raise ConfigError(f"prompts.path: there is no file {path}")
    with path.open(encoding="utf-8") as lines:
        return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(line: str, place: str) -> PromptRecord:
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place} is not JSON: {error}") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str) or not entry["prompt"].strip():
        raise ConfigError(f'{place} must be an object with a text "prompt"')
    metadata = entry.get("metadata", entry if "include" in entry else None)
    if metadata is not None and not isinstance(metadata, dict):
        raise ConfigError(f'{place}: "metadata" must be an object')
    return PromptRecord(entry["prompt"], metadata, str(entry.get("task") or (metadata or {}).get("tag") or ""))
