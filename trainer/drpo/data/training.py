"""The prompts that a run trains on: those of its prompt source, or those of its preferences."""

from __future__ import annotations

from drpo.config import Config
from drpo.data.preferences import read_preference_prompts
from drpo.data.prompts import PromptRecord, load_prompts


def load_training_prompts(config: Config) -> list[PromptRecord] | None:
    """The training prompts; None if they are known only when preferences on the hub are read.

    Raises:
        CatalogueError: there is no such source.
        ConfigError: the source cannot be read or has mistakes; see `load_prompts` and `read_preference_prompts`.
    """
    if config.offline is None:
        return load_prompts(config.prompts)
    prompts = read_preference_prompts(config.offline)
    return [PromptRecord(prompt) for prompt in prompts] if prompts is not None else None
