"""How many colours and places the pictures use where their prompts leave them open.

A generator that is rewarded for right pictures may come to paint everything in a few colours or places that it draws
surely, which no prompt asks for, and which no reward counts. These two numbers show it:

    colours   of the objects whose prompt names no colour for them
    places    of the nine parts of the picture, of the objects whose prompt names no relation

Each is an effective number, the exponential of the entropy: all in one colour is 1, eight colours in equal shares are
8. Every prompt names its shapes, so they are never open.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drpo_rewards.rewards.geneval.rules import THRESHOLD, keep
from drpo_rewards.rewards.geneval.shapes_detector import ShapesColorClassifier, ShapesDetector

_PARTS = 3  # the picture is divided into as many rows and columns


@dataclass(frozen=True)
class Seen:
    """Counts of what was free to choose in some pictures.

    Attributes:
        colors: of objects, by the name of the colour.
        places: of objects, by (row, column).
    """

    colors: Counter[str] = field(default_factory=Counter)
    places: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.colors + other.colors, self.places + other.places)


def look(
    picture_HW3: NDArray[np.uint8], metadata: Mapping[str, Any], objects: Sequence[Mapping[str, Any]] | None = None
) -> Seen:
    """Counts the objects of a picture whose colour or place its prompt leaves open.

    Args:
        picture_HW3: uint8 RGB.
        metadata: the prompt's GenEval specification. Objects that it does not name are not counted.
        objects: what GenEval's details say about the picture, which saves finding it a second time; None: unknown.
    """
    if objects is None:
        objects = _find(picture_HW3)
    in_any_color, in_any_place = find_open(metadata)
    colors = Counter(one["color"] for one in objects if one["class"] in in_any_color)
    places: Counter[tuple[int, int]] = Counter()
    height, width = picture_HW3.shape[:2]
    for one in objects:
        if one["class"] in in_any_place:
            x1, y1, x2, y2 = one["box"]
            row, column = _PARTS * (y1 + y2) / (2 * height), _PARTS * (x1 + x2) / (2 * width)
            places[min(int(row), _PARTS - 1), min(int(column), _PARTS - 1)] += 1
    return Seen(colors, places)


def find_open(metadata: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """The objects of a prompt whose colour it leaves open, and those whose place.

    Args:
        metadata: see `look`.
    """
    clauses = metadata.get("include", [])
    asked = {clause["class"] for clause in clauses}
    colored = {clause["class"] for clause in clauses if clause.get("color")}
    placed = any(clause.get("position") for clause in clauses)
    return asked - colored, set() if placed else asked


def _find(picture_HW3: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """The objects of a picture, as GenEval's details describe them."""
    (detections,) = ShapesDetector().detect([picture_HW3])
    found = [one for objects in keep(detections, THRESHOLD).values() for one in objects]
    colors = ShapesColorClassifier().classify(picture_HW3, found)
    return [{"class": one.label, "box": one.box, "color": color} for one, color in zip(found, colors, strict=True)]


def add(seen: Iterable[Seen]) -> Seen:
    """The counts of all of them together."""
    return sum(seen, Seen())


def effective_number(counts: Counter[Any]) -> float:
    """The exponential of the entropy of the shares; 0 if nothing was counted."""
    total = counts.total()
    shares = [count / total for count in counts.values() if count]
    return math.exp(-sum(share * math.log(share) for share in shares)) if shares else 0.0
