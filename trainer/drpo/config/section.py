"""The base of everything that has settings: a section of a config, an objective, a feature map."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, field_validator

from drpo_rewards.settings import section

MOST_INTEGER = 2**63 - 1
"""The largest integer, also of seeds: torch, Ray and the ranking contract take no larger ones."""


def _refuse_repetition(texts: tuple[str, ...]) -> tuple[str, ...]:
    twice = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is given twice; give each once")
    return texts


DistinctTexts = Annotated[tuple[str, ...], AfterValidator(_refuse_repetition)]
"""Texts of which no two are the same."""


class Section(section.Section):
    """Unknown keys are refused. Numbers are finite, and never true or false; integers have at most 63 bits."""

    model_config = ConfigDict(validate_default=True)

    @field_validator("*")
    @classmethod
    def _refuse_long_integer(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > MOST_INTEGER:
            raise ValueError(f"an integer of {value.bit_length()} bits is too large; at most {MOST_INTEGER}")
        return value
