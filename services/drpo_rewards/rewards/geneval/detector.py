"""The interfaces of a detector and a colour classifier, as GenEval's rules need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        label: the name of its class.
        score: the detector's confidence, 0 to 1.
        box: x1, y1, x2, y2 in pixels. y grows downward; x2 and y2 are one past the last pixel.
        mask: (H, W) bool, of the whole image.

    Example:
        Detection("circle", 0.97, (10.0, 12.0, 34.0, 36.0), mask)
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray


class Detector(Protocol):
    """Finds objects in images.

    Attributes:
        classes: all labels that it knows. A spec with any other class is refused.
    """

    classes: tuple[str, ...]

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Return the detections in each image, (H, W, 3) uint8 RGB, in any order. The rules apply the thresholds."""
        ...


@runtime_checkable
class StagedDetector(Detector, Protocol):
    """A detector that prepares pictures on the CPU while its network works on others."""

    def prepare(self, images: Sequence[np.ndarray]) -> Any:
        """Do the work that needs no network. It runs in another thread than `detect_prepared`."""
        ...

    def detect_prepared(self, prepared: Any) -> list[list[Detection]]:
        """Return what `detect` returns, for the pictures that `prepare` got."""
        ...


class ColorClassifier(Protocol):
    """Names the colour of each detected object.

    Attributes:
        colors: the names that it may return.
        is_quick: whether it runs no network, so that also the colours that no rule asks for can be named.
    """

    colors: tuple[str, ...]
    is_quick: bool

    def classify(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        """Return one colour name per detection in `image`, (H, W, 3) uint8 RGB, in the detections' order."""
        ...
