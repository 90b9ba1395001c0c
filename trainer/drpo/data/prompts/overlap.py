"""Evaluation prompts that a run is also trained on. They flatter its result."""

from __future__ import annotations

from collections.abc import Iterable

from drpo.data.prompts.record import PromptRecord


def find_overlap(train: Iterable[PromptRecord], evaluation: Iterable[PromptRecord]) -> list[str]:
    """The prompts of `evaluation` that are also in `train`, each once, in their order.

    Two prompts are the same if they differ only in upper and lower case and in white space around them.
    """
    trained = {fold(record.prompt) for record in train}
    found = {fold(record.prompt): record.prompt for record in evaluation if fold(record.prompt) in trained}
    return list(found.values())


def fold(prompt: str) -> str:
    """The text by which prompts are compared."""
    return prompt.strip().casefold()
