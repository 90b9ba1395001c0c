"""The prompts of the embedded world, with their GenEval specifications."""

from __future__ import annotations

from drpo.config import PromptsConfig
from drpo.data.prompts.record import PromptRecord
from drpo.errors import ConfigError


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """The prompts of all six tasks of `settings.split`: "train", "validation" or "test".

    Raises:
        ConfigError: there is no such split.
    """
    from drpo.shapes.prompts import prompts

    try:
        shapes_prompts = prompts(settings.split)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(f"prompts.split: {error}") from error
    return [PromptRecord(prompt.prompt, prompt.metadata, prompt.task) for prompt in shapes_prompts]
