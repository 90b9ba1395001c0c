"""The rule that couples each noise with a scene.

A one-step generator is a function of its noise, so plain regression can train it only if the picture is a function of
the noise too. This rule is that function. 16 low-frequency modes of the noise decide what the caption does not name
(positions, sizes, colours, background), continuously where possible. One of them decides whether the caption is wrong,
that is, whether the picture differs from it in one fact.

Wrong captions are why the generator makes mistakes. Each fact of a caption is wrong with probability
`CAPTION_ERROR_RATE`, so prompts with more facts fail more often. The mistakes are those that text-to-image models are
known for: another shape, another colour, one object more or fewer, the opposite relation, two colours swapped.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.special import ndtr

from drpo.shapes.mistakes import change_one_fact
from drpo.shapes.world import DIAMETERS, SIZE, Shape, centres_of_two
from drpo_rewards.api.shapes import PALETTE, RELATIONS

CAPTION_ERROR_RATE = 0.2
"""Probability that a fact of a training caption is wrong."""

NUM_MODES = 16

_FACTS = {"single_object": 1, "two_object": 2, "counting": 2, "colors": 2, "position": 3, "color_attr": 3}
_CELLS = {3: ((1, 6, 8), (0, 2, 7)), 4: ((0, 2, 6, 8), (1, 3, 5, 7)), 5: ((0, 2, 4, 6, 8), (1, 3, 4, 5, 7))}

# Indices of the modes, named by what they decide.
_MISTAKE, _OTHER_1, _OTHER_2 = 0, 1, 2
_X, _Y, _GAP, _ACROSS_1, _ACROSS_2 = 3, 4, 5, 6, 7
_SIZE, _ARRANGEMENT = 8, 9
_COLOR = ((10, 11), (12, 13))
_TINT, _SLOPE = 14, 15


def modes(noise_NChw: NDArray[np.float32]) -> NDArray[np.float64]:
    """The lowest 2 x 2 cosine modes of each of the four channels, (N, 16); independent and of unit variance."""
    return dctn(noise_NChw.astype(np.float64), axes=(-2, -1), norm="ortho")[:, :, :2, :2].reshape(-1, NUM_MODES)


def caption_is_wrong(task: str, modes_M: NDArray[np.float64]) -> bool:
    """Whether the picture of this noise differs from a caption of this task."""
    return bool(ndtr(modes_M[_MISTAKE]) > (1 - CAPTION_ERROR_RATE) ** _FACTS[task])


def coupled_scene(metadata: dict, modes_M: NDArray[np.float64]) -> list[Shape]:
    """The scene for a caption's specification and the modes (16,) of a noise."""
    include = copy.deepcopy(metadata["include"])
    if caption_is_wrong(metadata["tag"], modes_M):
        change_one_fact(
            metadata["tag"],
            include,
            more=modes_M[_OTHER_1] > 0,
            other_name=lambda names, name: _other_name(names, name, modes_M),
        )
    objects: list[tuple[str, str]] = []
    for number, clause in enumerate(include):
        color = clause.get("color") or list(PALETTE)[_sector(modes_M, _COLOR[number], len(PALETTE))]
        objects += [(clause["class"], color)] * clause["count"]
    relation = next((c["position"][0] for c in include if c.get("position")), None)
    low, high = DIAMETERS[len(objects)]
    diameter = low + (high - low) * float(ndtr(modes_M[_SIZE]))
    centres = _centres(len(objects), relation, modes_M)
    return [Shape(name, color, x, y, diameter) for (name, color), (x, y) in zip(objects, centres, strict=True)]


def background(modes_M: NDArray[np.float64]) -> tuple[float, float]:
    """The brightness (0 to 255) and the vertical slope of the background."""
    return 232 + 16 * float(ndtr(modes_M[_TINT])), 12 * float(ndtr(modes_M[_SLOPE])) - 6


def _other_name(names: tuple[str, ...], name: str, modes_M: NDArray[np.float64]) -> str:
    shift = 1 + _sector(modes_M, (_OTHER_1, _OTHER_2), len(names) - 1)
    return names[(names.index(name) + shift) % len(names)]


def _sector(modes_M: NDArray[np.float64], pair: tuple[int, int], count: int) -> int:
    """The index of the sector, of `count` equal sectors of the plane, to which a pair of modes points."""
    turn = math.atan2(modes_M[pair[0]], modes_M[pair[1]]) / (2 * math.pi) + 0.5
    return min(int(turn * count), count - 1)


def _centres(count: int, relation: str | None, modes_M: NDArray[np.float64]) -> list[tuple[float, float]]:
    middle = SIZE / 2
    uniform_M = 2 * ndtr(modes_M) - 1  # uniform in -1..1
    if count == 1:
        return [(middle + 12 * uniform_M[_X], middle + 12 * uniform_M[_Y])]
    if count == 2:
        relation = relation or RELATIONS[0 if modes_M[_ARRANGEMENT] > 0 else 2]
        half = 15.5 + 1.5 * uniform_M[_GAP]
        return centres_of_two(relation, half, 8 * uniform_M[_ACROSS_1], 8 * uniform_M[_ACROSS_2])
    cells = _CELLS[count][int(modes_M[_ARRANGEMENT] > 0)]
    x, y = middle + 2 * uniform_M[_X], middle + 2 * uniform_M[_Y]
    return [(x + (cell % 3 - 1) * 20.5, y + (cell // 3 - 1) * 20.5) for cell in cells]
