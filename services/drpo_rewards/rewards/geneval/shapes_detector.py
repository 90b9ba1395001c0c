"""Classical computer vision for the embedded `shapes` world: a detector and a colour classifier without weights.

An object is a connected patch of one colour that differs from the background. The patch is stretched to a square and
compared with the outline of each class; the best match is its class. The score follows from how good the match is and
how pure the colour is, so that a blurred, misshapen or two-coloured blob stays below the rules' thresholds.
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

_SIDE = 24  # pixels; patches and outlines are compared at this width and height
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
        """Return the detections in each (H, W, 3) uint8 RGB image, the most confident first."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> list[Detection]:
        pixels = image.astype(np.float32)
        color_HW = _nearest_color(pixels)
        candidates = [
            _classify_patch(patch, window, pixels, color_HW) for patch, window in _find_patches(pixels, color_HW)
        ]
        detections = [detection for detection in candidates if detection is not None]
        return sorted(detections, key=lambda detection: -detection.score)


class ShapesColorClassifier:
    """Names an object by the colour of the palette that is nearest to the mean colour of its inside."""

    colors = tuple(PALETTE)
    is_quick = True

    def classify(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        """Return one colour name per detection in `image`, (H, W, 3) uint8 RGB, in the detections' order."""
        names = []
        for detection in detections:
            x1, y1, x2, y2 = (int(edge) for edge in detection.box)
            cut, mask = image[y1:y2, x1:x2].astype(np.float32), detection.mask[y1:y2, x1:x2]
            names.append(self.colors[int(_nearest_color(cut[_inside(mask)].mean(axis=0)))])
        return names


Window = tuple[slice, slice]
"""Rows and columns of a part of the image. A patch is a mask of the size of its window."""


def _find_patches(
    pixels: NDArray[np.float32], color_HW: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.bool_], Window]]:
    """Yield connected patches that differ from the background, each of one colour."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    contrast = _distance(pixels, np.median(border, axis=0))
    for region, window in _connected_patches(contrast > _FOREGROUND):
        # An anti-aliased edge is where the contrast is half of the object's own.
        region &= contrast[window] > 0.5 * np.quantile(contrast[window][region], 0.75)
        for patch, inner in _connected_patches(region):
            yield from _split_colors(patch, _within(window, inner), color_HW)


def _connected_patches(mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], Window]]:
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
    """Yield the patch itself, or its parts if two objects of different colours touch."""
    sizes = np.bincount(color_HW[window][_inside(patch)], minlength=len(PALETTE))
    if np.sort(sizes)[-2] < _SPLIT_SHARE * sizes.sum():
        yield patch, window
        return
    for name in np.flatnonzero(sizes):
        for part, inner in _connected_patches(patch & (color_HW[window] == name)):
            yield part, _within(window, inner)


def _classify_patch(
    patch: NDArray[np.bool_], window: Window, pixels: NDArray[np.float32], color_HW: NDArray[np.intp]
) -> Detection | None:
    """Classify a patch. Return None if it is too thin to be a shape."""
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
    main_color = _nearest_color(pixels[window][inside].mean(axis=0))
    purity = float((color_HW[window][inside] == main_color).mean())
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    mask[window] = patch
    box = (float(window[1].start), float(window[0].start), float(window[1].stop), float(window[0].stop))
    return Detection(label, _ramp(overlap, _OVERLAP_RANGE) * _ramp(purity, _PURITY_RANGE), box, mask)


def _overlap(a: NDArray, b: NDArray) -> float:
    """Return the intersection over union of two soft masks."""
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


def _ramp(value: float, bounds: tuple[float, float]) -> float:
    return float(np.clip((value - bounds[0]) / (bounds[1] - bounds[0]), 0, 1))


def _inside(patch: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the patch without its edge, whose colour is mixed with the background."""
    eroded = patch.copy()
    eroded[1:] &= patch[:-1]
    eroded[:-1] &= patch[1:]
    eroded[:, 1:] &= patch[:, :-1]
    eroded[:, :-1] &= patch[:, 1:]
    eroded[[0, -1]] = False
    eroded[:, [0, -1]] = False
    return eroded if eroded.sum() >= 8 else patch


def _nearest_color(pixels: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the index of the nearest colour in PALETTE for each (..., 3) pixel."""
    return np.stack([_distance(pixels, np.array(color)) for color in PALETTE.values()]).argmin(axis=0)


def _distance(pixels: NDArray[np.float32], color: NDArray) -> NDArray[np.float32]:
    """Return the Euclidean RGB distance of each (..., 3) pixel to one colour."""
    r, g, b = (pixels[..., k] - np.float32(color[k]) for k in range(3))
    return np.sqrt(r * r + g * g + b * b)


@cache
def _outlines() -> dict[str, NDArray[np.float32]]:
    """Return each shape filled and stretched to a square: (24, 24) in 0..1. A bar becomes a square."""
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
    """Return a heart: two lobes over a point."""
    lobes = np.hypot((np.abs(u) - 0.48) / 0.52, (v + 0.42) / 0.55) < 1
    return lobes | ((v > -0.35) & (np.abs(u) < 0.98 * (1 - v) / 1.3))


def _moon(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a crescent open to the right: a disc minus a smaller one. Unstretched, x reaches from -1 to 0.574."""
    x = (u + 1) / 2 * 1.574 - 1
    return (np.hypot(x, v) < 1) & (np.hypot(x - 0.5, v) > 0.82)


def _star(side: int) -> NDArray[np.bool_]:
    """Return a star with five points, one of them up. The notches are at 0.417 of the points' radius."""
    angles = np.pi / 5 * np.arange(10)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.417)
    xs, ys = radii * np.sin(angles), -radii * np.cos(angles)
    xs, ys = (xs - xs.min()) / np.ptp(xs) * side, (ys - ys.min()) / np.ptp(ys) * side
    canvas = Image.new("1", (side, side))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)], fill=1)
    return np.asarray(canvas)
