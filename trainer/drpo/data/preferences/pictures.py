"""An image as the autoencoder takes it: the shorter side scaled to the size, the middle cut out, values in [-1, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drpo.data.preferences.record import Picture
from drpo.errors import ConfigError
from drpo_rewards.api.images import ImageLimits, decode
from drpo_rewards.errors import InvalidImageError

LIMITS = ImageLimits(min_side=1, max_pixels=2**27)
"""Photographs may be large, and are scaled down. A file whose header states far more is no photograph."""


def read_picture(picture: Picture, size: tuple[int, int], position: str) -> Tensor:
    """Reads an image as the rewards' services read theirs, scales and crops it.

    Args:
        picture: its file, or the content of one.
        size: (height, width) of the result.
        position: file and row of its preference, for error messages.

    Returns:
        (3, H, W) float32 in [-1, 1].

    Raises:
        ConfigError: it is not a PNG, JPEG or WebP image, is damaged, or has no one conversion to RGB.
    """
    what = str(picture) if isinstance(picture, Path) else f"an image of {len(picture)} bytes"
    try:
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
        image = Image.fromarray(decode(content, field="it", limits=LIMITS))
    except (OSError, InvalidImageError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{position}: cannot read {what}: {reason}; remove the row or replace the image") from error
    height, width = size
    scale = max(height / image.height, width / image.width)
    scaled = (max(width, int(scale * image.width)), max(height, int(scale * image.height)))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels_HW3 = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32)
    return torch.from_numpy(pixels_HW3 / 127.5 - 1).permute(2, 0, 1)
