"""Prompt sources: where the prompts of a run come from.

    load_prompts(PromptsConfig(source="parti"))

Files:
    source        what a source is, and where its prompts come from
    sources/      one file per source, and one line in `PROMPT_SOURCES`
    rows          reading of .txt, .jsonl, .csv, .tsv and .parquet
    records       prompts from rows, and what can be wrong with a row
    problems      all problems of a file in one error
    downloads     the files of public sets, in the data folder
    overlap       evaluation prompts that are also trained on
    check         everything about prompts that is known before a run starts
    order         the order in which a run uses its prompts
"""

from __future__ import annotations

from importlib import import_module

from drpo.config import PromptsConfig
from drpo.data.prompts.order import PromptOrder
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.source import PromptSource
from drpo.errors import CatalogueError, ConfigError

PROMPT_SOURCES = {
    "shapes": "drpo.data.prompts.sources.shapes",
    "file": "drpo.data.prompts.sources.file",
    "hub": "drpo.data.prompts.sources.hub",
    "pickapic_v2": "drpo.data.prompts.sources.pickapic_v2",
    "parti": "drpo.data.prompts.sources.parti",
    "geneval": "drpo.data.prompts.sources.geneval",
    "geneval_train": "drpo.data.prompts.sources.geneval_train",
    "geneval2": "drpo.data.prompts.sources.geneval2",
    "drawbench": "drpo.data.prompts.sources.drawbench",
    "hpdv2": "drpo.data.prompts.sources.hpdv2",
}

USUAL_SPLITS = ("train", "validation", "test")
"""The splits that presets name, also for sources that have only one set."""


def find_source(name: str) -> PromptSource:
    """The source of this name.

    Raises:
        CatalogueError: there is no such source.
    """
    if name not in PROMPT_SOURCES:
        raise CatalogueError(f"there is no prompt source {name!r}; choose from {', '.join(PROMPT_SOURCES)}")
    source: PromptSource = import_module(PROMPT_SOURCES[name]).SOURCE
    return source


def load_prompts(settings: PromptsConfig, section: str = "prompts") -> list[PromptRecord]:
    """Loads the prompts of a source: of all tasks, or only of those in `settings.tasks`.

    Args:
        settings: the source, and what it reads.
        section: the section of the config that error messages name.

    Raises:
        CatalogueError: there is no such source.
        ConfigError: the source has no such split, file or task, or has no prompts, or what it reads has mistakes. The
            message has one line per mistake.
    """
    source = find_source(settings.source)
    _check_settings(source, settings, section)
    records = source.load(settings)
    if settings.tasks is not None:
        tasks = {record.task for record in records}
        for task in settings.tasks:
            if task not in tasks:
                raise ConfigError(
                    f"{section}.tasks: there is no task {task!r} in {settings.source}"
                    f"{'; choose from ' + ', '.join(sorted(tasks)) if tasks - {''} else ', which has no tasks'}"
                )
        records = [record for record in records if record.task in settings.tasks]
    if not records:
        where = f" ({settings.path})" if settings.path else ""
        raise ConfigError(f"the prompt source {settings.source}{where} has no prompts")
    return records


def _check_settings(source: PromptSource, settings: PromptsConfig, section: str) -> None:
    """Checks the settings that every source either uses or does not have."""
    if source.reads_path:
        if settings.path is None:
            needs = "a data set of the hub (ORG/NAME)" if settings.source == "hub" else "a file"
            raise ConfigError(f"{section}.path is not set: the source {settings.source} needs {needs}")
    else:
        for key in ("path", "column"):
            if getattr(settings, key) is not None:
                raise ConfigError(
                    f"{section}.{key} is {getattr(settings, key)!r}, but the source {settings.source} reads no file: "
                    f"leave it out, or set {section}.source to file or hub"
                )
        if settings.task_column not in (None, *source.task_columns):
            takes = " or ".join(source.task_columns) or "none; leave it out"
            raise ConfigError(
                f"{section}.task_column is {settings.task_column!r}, but the source {settings.source} takes {takes}"
            )
    if not source.splits and settings.source != "hub" and settings.split not in USUAL_SPLITS:
        raise ConfigError(
            f"{section}.split: there is no split {settings.split!r}: the source {settings.source} has only one set; "
            "set it to train"
        )
    if source.splits and settings.split not in source.splits:
        raise ConfigError(
            f"{section}.split: there is no split {settings.split!r} of {settings.source}; choose from "
            f"{', '.join(source.splits)}"
        )


__all__ = [
    "PROMPT_SOURCES",
    "PromptOrder",
    "PromptRecord",
    "PromptSource",
    "find_source",
    "load_prompts",
]
