"""One prompt of a prompt source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A prompt, the metadata that rewards need, and its task.

    Attributes:
        prompt: the text that the generator and the rewards see.
        metadata: passed to the rewards unchanged, for example a GenEval specification; None if they need nothing.
        task: the task by which prompts are balanced and results are reported; "" if the source has no tasks.

    Example:
        PromptRecord("a photo of a red ring", {"include": [{"class": "ring", "count": 1, "color": "red"}]}, "colors")
    """

    prompt: str
    metadata: Mapping[str, Any] | None = None
    task: str = ""
