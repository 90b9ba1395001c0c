"""Prompt sources. Each has one file, and one line in `PROMPT_SOURCES`."""

from __future__ import annotations

from importlib import import_module

from drpo.config import PromptsConfig
from drpo.data.prompts.order import PromptOrder
from drpo.data.prompts.record import PromptRecord
from drpo.errors import CatalogueError, ConfigError

PROMPT_SOURCES = {
    "jsonl": "drpo.data.prompts.jsonl:load",
    "shapes": "drpo.data.prompts.shapes:load",
}


def load_prompts(settings: PromptsConfig) -> list[PromptRecord]:
    """Loads the prompts of a source: of all tasks, or only of those in `settings.tasks`.

    Raises:
        CatalogueError: there is no such source.
        ConfigError: the source has no such split, file or task, or has no prompts.
    """
    if settings.source not in PROMPT_SOURCES:
        raise CatalogueError(
            f"there is no prompt source {settings.source!r}; choose from {', '.join(sorted(PROMPT_SOURCES))}"
        )
    module, _, function = PROMPT_SOURCES[settings.source].partition(":")
    records: list[PromptRecord] = getattr(import_module(module), function)(settings)
    if settings.tasks is not None:
        tasks = {record.task for record in records}
        for task in settings.tasks:
            if task not in tasks:
                raise ConfigError(f"prompts.tasks: there is no task {task!r}; choose from {', '.join(sorted(tasks))}")
        records = [record for record in records if record.task in settings.tasks]
    if not records:
        raise ConfigError(f"the prompt source {settings.source!r} has no prompts")
    return records


__all__ = ["PROMPT_SOURCES", "PromptOrder", "PromptRecord", "load_prompts"]
