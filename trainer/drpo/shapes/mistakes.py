"""The mistakes that text-to-image models are known for: a scene that differs from its caption in one fact."""

from __future__ import annotations

from collections.abc import Callable

from drpo.shapes.world import MAX_COUNT
from drpo_rewards.api.shapes import PALETTE, SHAPES

_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def change_one_fact(
    task: str, include: list[dict], *, more: bool, other_name: Callable[[tuple[str, ...], str], str]
) -> None:
    """Changes the fact that a task is about: a shape, a colour, the count, the relation, or which colour is whose.

    Args:
        task: one of `drpo.shapes.prompts.TASKS`.
        include: the clauses of a specification; changed in place.
        more: a wrong count is one too many, if a scene has room for it, and otherwise one too few.
        other_name: chooses another one than the second argument from the names in the first.
    """
    last = include[-1]
    if task in ("single_object", "two_object"):
        last["class"] = other_name(SHAPES, last["class"])
    elif task == "colors":
        last["color"] = other_name(tuple(PALETTE), last["color"])
    elif task == "counting":
        last["count"] += 1 if more and last["count"] < MAX_COUNT else -1
    elif task == "position":
        last["position"] = [_OPPOSITE[last["position"][0]], 0]
    else:
        include[0]["color"], last["color"] = last["color"], include[0]["color"]
