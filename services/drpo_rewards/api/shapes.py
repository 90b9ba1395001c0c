"""The vocabulary of the embedded `shapes` world, which its painter and its detector share."""

from __future__ import annotations

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "ring", "moon", "heart", "bar")
"""Names of the shapes."""

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 40),
    "orange": (245, 134, 24),
    "yellow": (246, 214, 36),
    "green": (40, 156, 62),
    "blue": (36, 88, 206),
    "purple": (128, 52, 168),
    "pink": (246, 138, 186),
    "black": (28, 28, 32),
}
"""Names of the colours, and each one's red, green and blue in 0..255."""

RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
"""GenEval's relations between two objects."""
