"""What a GenEval prompt asks for, as plain JSON that travels in a request's metadata."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from drpo_rewards.api.contract import Model, Whole


class Clause(Model):
    """One demand of a GenEval specification: at least (include) or fewer than (exclude) `count` objects of a class.

    Example:
        Clause(class_="circle", count=1, color="red", position=("left of", 0))
    """

    class_: str = Field(alias="class", min_length=1, description="Class name as the detector knows it.")
    count: Whole = Field(default=1, ge=1, le=100)
    color: str | None = Field(default=None, description="Colour that at least `count` of the found objects must have.")
    position: tuple[str, Whole] | None = Field(
        default=None,
        description='Relation and index of an earlier clause: ["left of", 0] means left of clause 0\'s objects.',
    )


class GenevalSpec(Model):
    """What a GenEval prompt asks for, in the JSON of the GenEval benchmark.

    Example:
        GenevalSpec(include=[{"class": "ring"}, {"class": "star", "color": "red", "position": ("above", 0)}])
    """

    tag: str = Field(default="", description="Task: single_object, two_object, counting, colors, position, color_attr.")
    prompt: str = ""
    include: list[Clause] = Field(min_length=1)
    exclude: list[Clause] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_clauses(self) -> GenevalSpec:
        for index, clause in enumerate(self.include):
            if clause.position is not None and not 0 <= clause.position[1] < index:
                raise ValueError(
                    f"include[{index}].position names clause {clause.position[1]}, but only an earlier clause can be "
                    f"the reference of a position"
                )
        for index, clause in enumerate(self.exclude):
            if clause.color is not None or clause.position is not None:
                raise ValueError(f"exclude[{index}]: an exclude clause may only have a class and a count")
        return self

    def to_metadata(self) -> dict[str, Any]:
        """Return the plain JSON dict that travels as a request's `metadata`."""
        return self.model_dump(by_alias=True, exclude_none=True)
