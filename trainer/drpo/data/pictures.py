"""Pictures that a user gives, read as the rewards' services read theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drpo.errors import ConfigError
from drpo_rewards.api.images import ImageLimits, decode, to_rgb
from drpo_rewards.errors import InvalidImageError

LIMITS = ImageLimits(min_side=1, max_pixels=2**27)
"""Photographs may be large, and are scaled down. A file whose header states far more is no photograph."""


def read_rgb(picture: Path | bytes | Image.Image) -> NDArray[np.uint8]:
    """Reads a picture as (H, W, 3).

    Args:
        picture: its file, the content of one, or what a data set has decoded.

    Raises:
        ConfigError: it is not a PNG, JPEG or WebP image, is damaged, or has no one conversion to RGB.
    """
    what = str(picture) if isinstance(picture, Path) else "a picture"
    what = f"an image of {len(picture)} bytes" if isinstance(picture, bytes) else what
    try:
        if isinstance(picture, Image.Image):
            return to_rgb(picture, field="it")
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
        return decode(content, field="it", limits=LIMITS)
    except (OSError, InvalidImageError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read {what}: {reason}") from error
