"""What GenEval's rules need of a detector and of a colour classifier; any object with these methods will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Detection:
    """One found object. Boxes are in pixels, y grows downward, and x2, y2 lie one past the last pixel."""

    label: str
    score: float
    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    mask: np.ndarray  # (H, W) bool


class Detector(Protocol):
    """Finds objects. `classes` are the labels that it can give, which a spec is checked against."""

    classes: tuple[str, ...]

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Detections of each image, (H, W, 3) uint8 RGB, in any order; thresholds are the rules' business."""
        ...


@runtime_checkable
class StagedDetector(Detector, Protocol):
    """A detector whose pictures can be prepared on the CPU while its network looks at others."""

    def prepare(self, images: Sequence[np.ndarray]) -> Any:
        """What needs no network; called from another thread than the rest."""
        ...

    def detect_prepared(self, prepared: Any) -> list[list[Detection]]:
        """`detect` of the pictures that `prepare` got."""
        ...


class ColorClassifier(Protocol):
    """Names the colour of each detected object, always one of `colors`."""

    colors: tuple[str, ...]

    def classify(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        """One colour name per detection of `image`, (H, W, 3) uint8 RGB, in the detections' order."""
        ...
