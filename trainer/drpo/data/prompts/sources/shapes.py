"""The prompts of the embedded world, with their GenEval specifications."""

from __future__ import annotations

from drpo.config import PromptsConfig
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.source import PromptSource


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """The prompts of all six tasks of `settings.split`: "train", "validation" or "test"."""
    from drpo.shapes.prompts import prompts

    shapes_prompts = prompts(settings.split)  # type: ignore[arg-type]
    return [PromptRecord(prompt.prompt, prompt.metadata, prompt.task) for prompt in shapes_prompts]


SOURCE = PromptSource("the embedded world's prompts, made here", load, splits=("train", "validation", "test"))
