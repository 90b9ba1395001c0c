"""The prompts that a run trains on: those of its prompt source, or those of its preferences."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.config import Config
from drpo.data.preferences import read_preference_prompts
from drpo.data.prompts import PromptRecord, load_prompts
from drpo.data.prompts.overlap import OVERLAP_FIX, describe_overlap
from drpo.errors import ConfigError


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


def load_held_out_prompts(config: Config) -> list[str]:
    """The evaluation prompts, if only the workers can see whether they are trained on; otherwise none.

    This is so for preferences on the hub. All other training prompts are compared before the start.

    Raises:
        CatalogueError, ConfigError: see `load_training_prompts`.
    """
    compares = config.offline is not None and config.evaluation.enabled and not config.prompts.allow_overlap
    if not compares or load_training_prompts(config) is not None:
        return []
    return [record.prompt for record in load_prompts(config.evaluation_prompts(), "evaluation")]


def refuse_overlap(training: Sequence[PromptRecord], held_out: Sequence[str]) -> None:
    """Refuses to train on evaluation prompts.

    Raises:
        ConfigError: one of `held_out` is trained on.
    """
    if found := describe_overlap(training, [PromptRecord(prompt) for prompt in held_out]):
        raise ConfigError(f"{found}; {OVERLAP_FIX}")
