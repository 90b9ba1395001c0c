"""Prompt records from rows of any table: a file, or a data set of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from drpo.config import PromptsConfig
from drpo.data.prompts.problems import Problems, find_json_problem, find_text_problem
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.rows import Row
from drpo_rewards.reading import why_unreadable

PROMPT_COLUMNS = ("prompt", "caption", "Prompt", "text")
"""The columns that are tried in this order if the settings name none."""


def make_records(rows: Iterable[Row], problems: Problems, settings: PromptsConfig) -> list[PromptRecord]:
    """A record for each row.

    The columns `task` and `metadata` are optional. `metadata` is an object, or JSON text of one. A row without
    `metadata` but with GenEval's `include` is itself the metadata, and its `tag` is the task.

    Args:
        rows: positions, and values by column.
        problems: where the problems of these and of all rows are noted.
        settings: `column` names the column of the prompts; None: the first of `PROMPT_COLUMNS` that a row has.
            `task_column` names that of the tasks.

    Raises:
        ConfigError: there are problems; see `Problems.raise_if_any`.
    """
    records = []
    for position, row in rows:
        found = _read_row(row, settings.column, settings.task_column)
        if isinstance(found, PromptRecord):
            records.append(found)
        else:
            problems.add(position, found)
    problems.raise_if_any()
    return records


def _read_row(row: dict[str, Any], column: str | None, task_column: str | None) -> PromptRecord | str:
    """The record of a row, or what is wrong with the row."""
    names = (column,) if column is not None else PROMPT_COLUMNS
    present = [name for name in names if name in row]
    if not present:
        columns = " or ".join(names)
        return f"has no column {columns}: the row has {_join(row)}; prompts.column names the column of the prompts"
    name = next((name for name in present if row[name] is not None), present[0])
    prompt = row[name]
    if prompt is None:
        return f'"{name}" is empty'
    if not isinstance(prompt, str):
        return f'"{name}" must be text, not {json.dumps(prompt, default=str)[:40]}'
    if not prompt.strip():
        return f'"{name}" is empty'
    if problem := find_text_problem(prompt):
        return f'"{name}" {problem}'
    metadata = row.get("metadata")
    if metadata is None and isinstance(row.get("include"), list):
        metadata = row
    if isinstance(metadata, str):  # in a table of text
        try:
            metadata = json.loads(metadata) if metadata.strip() else None
        except ValueError as error:
            return f'"metadata" is not JSON: {why_unreadable(error)}'
        except RecursionError:
            return '"metadata" is not usable JSON: it is nested too deeply'
    if metadata is not None and not isinstance(metadata, dict):
        return '"metadata" must be an object'
    if metadata is not None and (problem := find_json_problem(metadata)):
        return f'"metadata" {problem}'
    if task_column is not None and task_column not in row:
        return f"has no column {task_column}, which prompts.task_column names: the row has {_join(row)}"
    task = row.get(task_column or "task")
    if task is None or task == "":
        task = (metadata or {}).get("tag") or ""
    if not isinstance(task, str | int):
        return f'"task" must be text, not {json.dumps(task, default=str)[:40]}'
    if problem := find_text_problem(str(task)):
        return f'"task" {problem}'
    return PromptRecord(prompt, metadata, str(task))


def _join(row: dict[str, Any]) -> str:
    return ", ".join(map(str, row)) or "none"
