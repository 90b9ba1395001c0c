"""The base of everything that has settings."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """Unknown keys are refused. Numbers are finite, and never true or false."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_true(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take true for 1."""
        kinds = set(_kinds_in(cls.model_fields[info.field_name or ""].annotation))
        if kinds & {int, float} and not kinds & {bool, Any} and _holds_bool(value):
            raise ValueError("true and false are no numbers")
        return value


def _kinds_in(annotation: Any) -> list[Any]:
    """Return the types that a type consists of: str and float for dict[str, float] | None."""
    inner = get_args(annotation)
    return [kind for one in inner for kind in _kinds_in(one)] if inner else [annotation]


def _holds_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_bool, value.values()))
    return any(map(_holds_bool, value)) if isinstance(value, list | tuple) else isinstance(value, bool)
