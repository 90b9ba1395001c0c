"""An image as the autoencoder takes it: the shorter side scaled to the size, the middle cut out, values in [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drpo.data.pictures import read_rgb
from drpo.data.preferences.record import Picture
from drpo.errors import ConfigError


def read_picture(picture: Picture, size: tuple[int, int], position: str) -> Tensor:
    """Reads an image, scales and crops it.

    Args:
        picture: its file, or the content of one.
        size: (height, width) of the result.
        position: file and row of its preference, for error messages.

    Returns:
        (3, H, W) float32 in [-1, 1].

    Raises:
        ConfigError: it cannot be read; see `read_rgb`.
    """
    try:
        image = Image.fromarray(read_rgb(picture))
    except ConfigError as error:
        raise ConfigError(f"{position}: {error}; remove the row or replace the image") from error
    height, width = size
    scale = max(height / image.height, width / image.width)
    scaled = (max(width, int(scale * image.width)), max(height, int(scale * image.height)))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels_HW3 = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32)
    return torch.from_numpy(pixels_HW3 / 127.5 - 1).permute(2, 0, 1)
