"""Prompts to train on for GenEval: all that its templates form, without the official prompts and their mirror twins.

A mirror twin shows the same picture in other words: "a dog left of a cat" and "a cat right of a dog". The splits:

    train       the tasks two_object, counting, colors, position and color_attr. The template of single_object forms 80
                prompts, and all of them are official ones, so nothing is left of that task.
    rephrased   the same, and single_object in other phrasings, such as "a drawing of a bench". Their texts are not in
                the official set, but the objects are.
    test        the official prompts
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from drpo.config import PromptsConfig
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.source import PromptSource
from drpo.data.prompts.sources import geneval
from drpo.errors import ConfigError

PHRASINGS = (
    "a picture of {}", "an image of {}", "a drawing of {}", "a painting of {}", "a sketch of {}",
    "an illustration of {}", "a rendering of {}", "a close-up of {}", "a view of {}", "there is {}", "this is {}", "{}",
)  # fmt: skip

_NOTHING_LEFT = (
    "nothing is left of single_object: its template forms 80 prompts, and all of them are in GenEval's test set; "
    "prompts.split=rephrased has other phrasings, such as 'a drawing of a bench'"
)

_log = logging.getLogger(__name__)


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """The prompts of a split. Only those of `settings.tasks` are formed: color_attr alone has half a million.

    Raises:
        ConfigError: `settings.tasks` has an unknown task, or single_object, of which nothing is left.
    """
    if settings.split == "test":
        return geneval.load(settings)
    from drpo.data.prompts.sources.geneval_templates import TASKS

    chosen = [task for task in TASKS if settings.tasks is None or task in settings.tasks]
    for task in settings.tasks or ():
        if task not in TASKS:
            raise ConfigError(
                f"prompts.tasks: there is no task {task!r} in geneval_train; choose from {', '.join(TASKS)}"
            )
    if settings.split == "train" and "single_object" in chosen:
        if settings.tasks is not None:
            raise ConfigError(f"prompts.tasks: {_NOTHING_LEFT}")
        _log.info("geneval_train: %s", _NOTHING_LEFT)
    return [record for task in chosen for record in _form_task(task, rephrased=settings.split == "rephrased")]


def _form_task(task: str, rephrased: bool) -> Iterator[PromptRecord]:
    from drpo.data.prompts.sources import geneval_templates as templates

    if task == "single_object":
        entries = (templates.form_single_object(name, words) for words in PHRASINGS for name in templates.CLASSES)
        yield from (PromptRecord(entry["prompt"], entry, task) for entry in entries if rephrased)
        return
    official = [entry for entry in templates.make_official() if entry["tag"] == task]
    twins = [twin for entry in official if (twin := templates.mirror(entry)) is not None]
    left_out = {entry["prompt"] for entry in official + twins}
    for entry in templates.form_all(task):
        if entry["prompt"] not in left_out:
            yield PromptRecord(entry["prompt"], entry, task)


SOURCE = PromptSource(
    "GenEval's templates without its 553 prompts and their mirror twins, made here",
    load,
    splits=("train", "rephrased", "test"),
    origin=geneval.ORIGIN,
)
