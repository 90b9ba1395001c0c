"""Evaluation prompts that a run is also trained on. They flatter its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drpo.data.prompts.record import PromptRecord

OVERLAP_FIX = (
    "choose other prompts with evaluation.source, evaluation.path or evaluation.split; or set prompts.allow_overlap to "
    "true, or evaluation.enabled to false"
)
"""What to do about evaluation prompts that are trained on."""


def find_overlap(train: Iterable[PromptRecord], evaluation: Iterable[PromptRecord]) -> list[str]:
    """The prompts of `evaluation` that are also in `train`, each once, in their order.

    Two prompts are the same if they differ only in upper and lower case and in white space around them.
    """
    trained = {fold(record.prompt) for record in train}
    found = {fold(record.prompt): record.prompt for record in evaluation if fold(record.prompt) in trained}
    return list(found.values())


def describe_overlap(train: Iterable[PromptRecord], evaluation: Sequence[PromptRecord]) -> str:
    """How many of the evaluation prompts are also trained on, and some of them; "" if none is."""
    overlap = find_overlap(train, evaluation)
    if not overlap:
        return ""
    examples = ", ".join(repr(prompt) for prompt in overlap[:3]) + (", ..." if len(overlap) > 3 else "")
    distinct = len({record.prompt for record in evaluation})
    return f"{len(overlap)} of the {distinct} evaluation prompts are also training prompts ({examples})"


def fold(prompt: str) -> str:
    """The text by which prompts are compared."""
    return prompt.strip().casefold()
