"""One prompt of a prompt source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PromptRecord:
    """A prompt, what the rewards should know of it, and the task it belongs to.

    Attributes:
        prompt: the text that the generator and the rewards see.
        metadata: passed to the rewards as it is, for example a GenEval specification; None where they need nothing.
        task: the group that the prompt is balanced and reported in; "" where the source has none.
    """

    prompt: str
    metadata: Mapping[str, Any] | None = None
    task: str = ""
