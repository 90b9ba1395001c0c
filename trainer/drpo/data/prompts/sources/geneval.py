"""GenEval's 553 official prompts, made by its own rule. They equal the official file byte for byte."""

from __future__ import annotations

from drpo.config import PromptsConfig
from drpo.data.prompts.record import PromptRecord
from drpo.data.prompts.source import Origin, PromptSource

ORIGIN = Origin(
    homepage="https://github.com/djghosh13/geneval",
    licence="MIT",
    revision="af4902f",
)


def load(settings: PromptsConfig) -> list[PromptRecord]:
    """The official prompts, in the official order, each with its GenEval specification."""
    from drpo.data.prompts.sources.geneval_templates import make_official

    return [PromptRecord(entry["prompt"], entry, entry["tag"]) for entry in make_official()]


SOURCE = PromptSource("GenEval's 553 prompts in six tasks, made here", load, origin=ORIGIN)
