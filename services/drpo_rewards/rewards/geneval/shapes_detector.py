"""Classical computer vision for the embedded `shapes` world: a detector and a colour classifier without weights.

An object is a connected patch of one colour that differs from the background. The patch is stretched to a square, and
the outline that it matches best is its class. Its score follows from how well it matches and how pure its colour is, so
that a blurred, misshapen or two-coloured blob stays below the rules' thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from drpo_rewards.api.shapes import PALETTE, SHAPES
from drpo_rewards.rewards.geneval.detector import Detection

_SIDE = 24  # outlines are compared at this many pixels
_FOREGROUND = 48.0  # RGB distance from the background above which a pixel may belong to an object
_SMALLEST_AREA = 30  # pixels; the smallest object of the world has about 80
_SMALLEST_SIDE = 4  # pixels; the thinner side of the smallest bar is 5
_SPLIT_SHARE = 0.2  # a patch is split in two if a second colour has this share of it
_OVERLAP_RANGE = (0.56, 0.72)  # overlaps with the outline that score 0 and 1
_PURITY_RANGE = (0.55, 0.85)  # shares of the inside in the object's own colour that score 0 and 1
_BAR_ASPECT = 1.7  # width over height from which a filled rectangle is a bar, not a square


class ShapesDetector:
    """Finds the eight shapes of the embedded world in pictures of about 64 x 64 pixels."""

    classes = SHAPES

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Detections of each `(H, W, 3)` uint8 RGB image, best first."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> list[Detection]:
        pixels = image.astype(np.float32)
        color_HW = _nearest_color(pixels)
        found = [_classify_patch(patch, window, pixels, color_HW) for patch, window in _patches(pixels, color_HW)]
        return sorted((d for d in found if d is not None), key=lambda detection: -detection.score)


class ShapesColorClassifier:
    """Names an object by the colour of the palette that is nearest to the mean colour of its inside."""

    colors = tuple(PALETTE)

    def classify(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        """One colour name per detection of `image`, (H, W, 3) uint8 RGB, in the detections' order."""
        names = []
        for detection in detections:
            x1, y1, x2, y2 = (int(edge) for edge in detection.box)
            cut, mask = image[y1:y2, x1:x2].astype(np.float32), detection.mask[y1:y2, x1:x2]
            names.append(self.colors[int(_nearest_color(cut[_inside(mask)].mean(axis=0)))])
        return names


Window = tuple[slice, slice]
"""Rows and columns of a part of the image. A patch is a mask of the size of its window, which saves work."""


def _patches(pixels: NDArray[np.float32], color_HW: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.bool_], Window]]:
    """Connected patches that differ from the background, each of one colour."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    contrast = _distance(pixels, np.median(border, axis=0))
    for region, window in _connected(contrast > _FOREGROUND):
        # An anti-aliased edge is where the contrast is half of the object's own.
        region &= contrast[window] > 0.5 * np.quantile(contrast[window][region], 0.75)
        for patch, inner in _connected(region):
            yield from _split_colors(patch, _within(window, inner), color_HW)


def _connected(mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], Window]]:
    labels, _ = ndimage.label(mask)
    for k, window in enumerate(ndimage.find_objects(labels), start=1):
        patch = labels[window] == k
        if patch.sum() >= _SMALLEST_AREA:
            yield patch, window


def _within(outer: Window, inner: Window) -> Window:
    rows, columns = (slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))
    return rows, columns


def _split_colors(
    patch: NDArray[np.bool_], window: Window, color_HW: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.bool_], Window]]:
    """The patch itself, or its parts if two objects of different colours touch."""
    sizes = np.bincount(color_HW[window][_inside(patch)], minlength=len(PALETTE))
    if np.sort(sizes)[-2] < _SPLIT_SHARE * sizes.sum():
        yield patch, window
        return
    for name in np.flatnonzero(sizes):
        for part, inner in _connected(patch & (color_HW[window] == name)):
            yield part, _within(window, inner)


def _classify_patch(
    patch: NDArray[np.bool_], window: Window, pixels: NDArray[np.float32], color_HW: NDArray[np.intp]
) -> Detection | None:
    """The detection of a patch; None if the patch is too thin to be a shape."""
    height, width = patch.shape
    if min(width, height) < _SMALLEST_SIDE:
        return None
    cut = Image.fromarray(patch.astype(np.uint8) * 255)
    stretched = np.asarray(cut.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    label, overlap = max(
        ((name, _overlap(stretched, outline)) for name, outline in _outlines().items()), key=lambda pair: pair[1]
    )
    aspect = width / height
    if label == "square" and aspect > _BAR_ASPECT:
        label = "bar"
    elif not 0.6 < aspect < _BAR_ASPECT:  # all other shapes are about as wide as high
        overlap *= 0.5
    inside = _inside(patch)
    own = _nearest_color(pixels[window][inside].mean(axis=0))
    purity = float((color_HW[window][inside] == own).mean())
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    mask[window] = patch
    box = (float(window[1].start), float(window[0].start), float(window[1].stop), float(window[0].stop))
    return Detection(label, _ramp(overlap, _OVERLAP_RANGE) * _ramp(purity, _PURITY_RANGE), box, mask)


def _overlap(a: NDArray, b: NDArray) -> float:
    """Intersection over union of two soft masks."""
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


def _ramp(value: float, bounds: tuple[float, float]) -> float:
    return float(np.clip((value - bounds[0]) / (bounds[1] - bounds[0]), 0, 1))


def _inside(patch: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The patch without its edge, whose colour is mixed with the background."""
    eroded = patch.copy()
    eroded[1:] &= patch[:-1]
    eroded[:-1] &= patch[1:]
    eroded[:, 1:] &= patch[:, :-1]
    eroded[:, :-1] &= patch[:, 1:]
    eroded[[0, -1]] = False
    eroded[:, [0, -1]] = False
    return eroded if eroded.sum() >= 8 else patch


def _nearest_color(pixels: NDArray[np.float32]) -> NDArray[np.intp]:
    """The index of the nearest colour in PALETTE for each `(..., 3)` pixel."""
    return np.stack([_distance(pixels, np.array(color)) for color in PALETTE.values()]).argmin(axis=0)


def _distance(pixels: NDArray[np.float32], color: NDArray) -> NDArray[np.float32]:
    """Euclidean RGB distance of each `(..., 3)` pixel to one colour."""
    r, g, b = (pixels[..., k] - np.float32(color[k]) for k in range(3))
    return np.sqrt(r * r + g * g + b * b)


@cache
def _outlines() -> dict[str, NDArray[np.float32]]:
    """Each shape filled and its bounding box stretched to a square: (24, 24) in 0..1. A stretched bar is a square."""
    side = 16 * _SIDE
    v, u = (np.mgrid[0:side, 0:side] + 0.5) / side * 2 - 1  # -1..1, v downward
    radius = np.hypot(u, v)
    shapes = {
        "circle": radius < 1,
        "square": radius >= 0,
        "triangle": np.abs(u) < (v + 1) / 2,
        "star": _star(side),
        "ring": (radius < 1) & (radius > 0.52),
        "moon": _moon(u, v),
        "heart": _heart(u, v),
    }
    return {
        name: shape.reshape(_SIDE, 16, _SIDE, 16).mean(axis=(1, 3)).astype(np.float32) for name, shape in shapes.items()
    }


def _heart(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A heart: two lobes over a point."""
    lobes = np.hypot((np.abs(u) - 0.48) / 0.52, (v + 0.42) / 0.55) < 1
    return lobes | ((v > -0.35) & (np.abs(u) < 0.98 * (1 - v) / 1.3))


def _moon(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A crescent open to the right: a disc minus a smaller one. Before stretching it reaches from -1 to 0.574 in x."""
    x = (u + 1) / 2 * 1.574 - 1
    return (np.hypot(x, v) < 1) & (np.hypot(x - 0.5, v) > 0.82)


def _star(side: int) -> NDArray[np.bool_]:
    """A star with five points, one of them up. The notches are at 0.417 of the points' radius."""
    angles = np.pi / 5 * np.arange(10)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.417)
    xs, ys = radii * np.sin(angles), -radii * np.cos(angles)
    xs, ys = (xs - xs.min()) / np.ptp(xs) * side, (ys - ys.min()) / np.ptp(ys) * side
    canvas = Image.new("1", (side, side))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)], fill=1)
    return np.asarray(canvas)
