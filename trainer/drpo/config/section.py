"""The base of everything that has settings: a section of a config, an objective, a feature map."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

MOST_INTEGER = 2**63 - 1
"""The largest integer, also of seeds: torch, Ray and the ranking contract take no larger ones."""


class Section(BaseModel):
    """Unknown keys are refused. Numbers are finite, and never true or false; integers have at most 63 bits."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_true(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take true for 1."""
        kinds = set(_kinds_in(cls.model_fields[info.field_name or ""].annotation))
        if kinds & {int, float} and not kinds & {bool, Any} and _holds_bool(value):
            raise ValueError("true and false are no numbers")
        return value

    @field_validator("*")
    @classmethod
    def _refuse_long_integer(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > MOST_INTEGER:
            raise ValueError(f"an integer of {value.bit_length()} bits is too large; at most {MOST_INTEGER}")
        return value


def _kinds_in(annotation: Any) -> list[Any]:
    """The types that a type consists of: str and float for dict[str, float] | None."""
    inner = get_args(annotation)
    return [kind for one in inner for kind in _kinds_in(one)] if inner else [annotation]


def _holds_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_bool, value.values()))
    return any(map(_holds_bool, value)) if isinstance(value, list | tuple) else isinstance(value, bool)
