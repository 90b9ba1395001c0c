"""The world of `shapes`: its scenes, and how they are drawn.

A scene is one to five coloured shapes on a light background, drawn with anti-aliasing at 64 x 64 pixels. Scenes
are sampled from a GenEval specification (`{"tag", "include": [{"class", "count", "color"?, "position"?}]}`). What the
specification does not name (positions, sizes, colours, background) is random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from drpo_rewards.api.shapes import PALETTE, RELATIONS, SHAPES

SIZE = 64
"""Side of a picture in pixels."""

MAX_COUNT = 5

_SUPERSAMPLING = 4
_JITTER = 10  # largest change of an object's colour, per channel, in 0..255
DIAMETERS = {1: (24, 32), 2: (21, 26), 3: (16, 19), 4: (16, 18), 5: (15, 18)}
"""Range of diameters in pixels, by the number of objects in the scene."""


@dataclass(frozen=True)
class Shape:
    """One object of a scene, such as `Shape("star", "red", 20.5, 31.0, 24.0)`; centre and diameter are in pixels."""

    name: str
    color: str
    x: float
    y: float
    diameter: float


def sample_scene(metadata: dict, rng: np.random.Generator) -> list[Shape]:
    """Samples a scene that fulfils a GenEval specification.

    Raises:
        ValueError: the specification asks for more objects than `MAX_COUNT`, or for an unknown shape.
    """
    names: list[tuple[str, str]] = []
    for clause in metadata["include"]:
        if clause["class"] not in SHAPES:
            raise ValueError(f"there is no shape {clause['class']!r}; choose from {', '.join(SHAPES)}")
        color = clause.get("color") or rng.choice(list(PALETTE))
        names += [(clause["class"], str(color))] * clause.get("count", 1)
    if len(names) > MAX_COUNT:
        raise ValueError(f"the specification asks for {len(names)} objects, but a scene has at most {MAX_COUNT}")
    relation = next((c["position"][0] for c in metadata["include"] if c.get("position")), None)
    centres = _centres(len(names), relation, rng)
    low, high = DIAMETERS[len(names)]
    return [
        Shape(name, color, x, y, float(rng.uniform(low, high)))
        for (name, color), (x, y) in zip(names, centres, strict=True)
    ]


def _centres(count: int, relation: str | None, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Samples the centres of `count` objects that do not touch. The second is in `relation` to the first."""
    middle = SIZE / 2
    if count == 1:
        return [(middle + rng.uniform(-12, 12), middle + rng.uniform(-12, 12))]
    if count == 2:
        return centres_of_two(relation or str(rng.choice(RELATIONS)), rng.uniform(14, 17), *rng.uniform(-8, 8, size=2))
    cells = rng.choice(9, size=count, replace=False)
    pitch = 21.0
    return [
        (
            middle + (int(cell) % 3 - 1) * pitch + rng.uniform(-1, 1),
            middle + (int(cell) // 3 - 1) * pitch + rng.uniform(-1, 1),
        )
        for cell in cells
    ]


def centres_of_two(relation: str, half: float, across_1: float, across_2: float) -> list[tuple[float, float]]:
    """The centres (x, y) of two objects, the second one in `relation` to the first.

    Along the axis of the relation each is `half` pixels from the middle, and across it `across_1` or `across_2` pixels.
    """
    middle = SIZE / 2
    first, second = (half, -half) if relation in ("left of", "above") else (-half, half)
    if relation in ("left of", "right of"):
        return [(middle + first, middle + across_1), (middle + second, middle + across_2)]
    return [(middle + across_1, middle + first), (middle + across_2, middle + second)]


def render(scene: list[Shape], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draws a scene with a random light background and slightly varied colours; (64, 64, 3) uint8, RGB."""
    jitter = {shape: rng.integers(-_JITTER, _JITTER + 1, size=3) for shape in scene}
    tint = rng.uniform(232, 248) + rng.uniform(-5, 5, size=3)
    return draw_scene(scene, tint, rng.uniform(-6, 6), jitter)


def draw_scene(
    scene: list[Shape],
    tint: NDArray[np.float64] | float,
    slope: float,
    jitter: Mapping[Shape, NDArray[np.int64]] | None = None,
) -> NDArray[np.uint8]:
    """Draws a scene; (64, 64, 3) uint8, RGB.

    Args:
        scene: the shapes; later ones cover earlier ones.
        tint: the colour (3,) or the brightness of the background, 0 to 255.
        slope: how much brighter the bottom row is than the middle; negative: darker.
        jitter: added to the colour (3,) of each shape.
    """
    image = Image.fromarray(_background(tint, slope)).resize((SIZE * _SUPERSAMPLING,) * 2, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for shape in scene:
        color = np.clip(np.array(PALETTE[shape.color]) + (jitter or {}).get(shape, 0), 0, 255)
        _draw_shape(draw, shape, (int(color[0]), int(color[1]), int(color[2])))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def _background(tint: NDArray[np.float64] | float, slope: float) -> NDArray[np.uint8]:
    rows = np.clip(np.broadcast_to(tint, (SIZE, 3)) + slope * np.linspace(-1, 1, SIZE)[:, None], 0, 255)
    return np.repeat(rows[:, None, :], SIZE, axis=1).astype(np.uint8)


def _draw_shape(draw: ImageDraw.ImageDraw, shape: Shape, fill: tuple[int, int, int]) -> None:
    scale = _SUPERSAMPLING
    x, y, r = shape.x * scale, shape.y * scale, shape.diameter / 2 * scale
    draw.polygon([(x + r * u, y + r * v) for u, v in _outline(shape.name)], fill=fill)


def _arc(cx: float, cy: float, r: float, start: float, stop: float, n: int = 40) -> list[tuple[float, float]]:
    """Points on an arc. Angles are in degrees, clockwise from the right, because y grows downward."""
    return [
        (cx + r * math.cos(a), cy + r * math.sin(a)) for a in np.linspace(math.radians(start), math.radians(stop), n)
    ]


def _outline(name: str) -> list[tuple[float, float]]:
    """The polygon of a shape, roughly in the square [-1, 1]^2; y grows downward."""
    if name == "circle":
        return _arc(0, 0, 1, 0, 360)
    if name == "square":
        return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    if name == "triangle":
        return [(0, -0.95), (1, 0.9), (-1, 0.9)]
    if name == "star":
        points = []
        for k in range(10):
            radius = 1.08 if k % 2 == 0 else 0.45
            angle = math.radians(-90 + 36 * k)
            points.append((radius * math.cos(angle), radius * math.sin(angle)))
        return points
    if name == "ring":  # one polygon: around the outside, across a seam, and back around the hole
        return _arc(0, 0, 1, 0, 360) + _arc(0, 0, 0.52, 360, 0)
    if name == "moon":  # a crescent, open to the right
        return _arc(0, 0, 1, 55, 305) + _arc(0.5, 0, 0.82, 273, 87)
    if name == "heart":
        return [*_arc(0.48, -0.38, 0.52, 205, 380, 24), (0, 0.98), *_arc(-0.48, -0.38, 0.52, 160, 335, 24)]
    if name == "bar":  # a horizontal rectangle
        return [(-1, -0.36), (1, -0.36), (1, 0.36), (-1, 0.36)]
    raise ValueError(f"there is no shape {name!r}; choose from {', '.join(SHAPES)}")
