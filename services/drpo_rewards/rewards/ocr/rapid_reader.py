"""Reads text in pictures with RapidOCR, whose package carries the PP-OCRv6 models: nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo_rewards.errors import ConfigError

MAX_ASPECT = 4  # of what RapidOCR gets


class RapidReader:
    """PaddleOCR's PP-OCRv6 (small) on the CPU: finds lines of text, turns those that are upside down, and reads them.

    It uses as many threads as $OMP_NUM_THREADS says, which Ray sets to the CPUs of a replica.

    Args:
        min_confidence: lines that were read with less confidence are left out, 0 to 1.
        params: RapidOCR's own settings, by their dotted names, e.g. {"Det.limit_side_len": 960}.

    Raises:
        ConfigError: the package is missing, or it does not take these settings.
    """

    checkpoint = "PP-OCRv6 small"
    license = "Apache-2.0"

    def __init__(self, min_confidence: float = 0.5, params: dict[str, Any] | None = None) -> None:
        try:
            from rapidocr import RapidOCR
        except ModuleNotFoundError as error:
            raise ConfigError(f"reading text needs the package {error.name}: pip install 'drpo[ocr]'") from error
        threads = int(os.environ.get("OMP_NUM_THREADS") or -1)  # -1: all
        ours = {
            "Global.log_level": "error",
            "Global.text_score": min_confidence,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        }
        try:
            self._engine: Any = RapidOCR(params={**ours, **(params or {})})
        except Exception as error:  # the library has many kinds for one mistake
            raise ConfigError(f"ocr: RapidOCR does not take params {params}: {error}") from error
        self.version = f"rapidocr-{importlib.metadata.version('rapidocr')}"

    def read(self, images: Sequence[np.ndarray]) -> list[list[str]]:
        """Return the lines of text in each picture, from top to bottom."""
        return [list(self._engine(_prepare(image)).txts or ()) for image in images]


def _prepare(image_HW3: np.ndarray) -> np.ndarray:
    """Return what RapidOCR takes: BGR, and not narrow, as it scales the shorter side up to 736 pixels.

    A strip of 8 x 4096 pixels would become 736 x 376,832. So a narrow picture is put on a wider ground of its own mean
    colour.
    """
    height, width = image_HW3.shape[:2]
    least = -(-max(height, width) // MAX_ASPECT)
    if min(height, width) < least:
        ground_HW3 = np.empty((max(height, least), max(width, least), 3), np.uint8)
        ground_HW3[:] = image_HW3.mean(axis=(0, 1))
        top, left = (ground_HW3.shape[0] - height) // 2, (ground_HW3.shape[1] - width) // 2
        ground_HW3[top : top + height, left : left + width] = image_HW3
        image_HW3 = ground_HW3
    return np.ascontiguousarray(image_HW3[:, :, ::-1])
