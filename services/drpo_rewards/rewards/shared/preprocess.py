"""Pictures as the models of the CLIP family want them. Only the geometry differs, and it changes the score silently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from drpo_rewards.errors import InvalidImageError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_ASPECT = 200  # a line of pixels would be blown up to gigabytes

Crop = Literal["floor", "round"]


def crop_square(image_HW3: np.ndarray, side: int, crop: Crop) -> np.ndarray:
    """The shorter side scaled to `side` (PIL, bicubic), then the centre: (side, side, 3) uint8.

    An odd rest cannot be halved: `floor` cuts where transformers' CLIP processor does, `round` where torchvision's
    CenterCrop does, which half of the public rewards were trained with. They differ by a pixel where (rest % 4) is 3.
    """
    check_aspect(image_HW3)
    height, width = image_HW3.shape[:2]
    short, long = min(height, width), max(height, width)
    longer = int(side * long / short)
    size = (side, longer) if width <= height else (longer, side)
    scaled = Image.fromarray(image_HW3).resize(size, Image.Resampling.BICUBIC)
    left, top = (_offset(length - side, crop) for length in size)
    return np.asarray(scaled.crop((left, top, left + side, top + side)))


def _offset(rest: int, crop: Crop) -> int:
    return rest // 2 if crop == "floor" else round(rest / 2)  # Python rounds a half to the even neighbour


def crop_squares(images: Sequence[np.ndarray], side: int, crop: Crop) -> Tensor:
    """`crop_square` of each image: (N, side, side, 3) uint8."""
    return torch.from_numpy(np.stack([crop_square(image, side, crop) for image in images]))


def pad_square(image_HW3: np.ndarray, side: int) -> Tensor:
    """The longer side scaled to `side` (bicubic on the tensor, antialiased), black around it: (3, side, side) in 0..1.

    HPSv2 scores the whole picture: nothing is cropped, and the padding is black before the colours are normalised.
    """
    check_aspect(image_HW3)
    # In float64: torch's float32 filter is off by up to 3e-6, more than anything else here.
    pixels_13HW = torch.from_numpy(np.array(image_HW3)).permute(2, 0, 1)[None].double() / 255
    height, width = pixels_13HW.shape[2:]
    scale = side / max(height, width)
    if scale != 1:
        height, width = max(round(height * scale), 1), max(round(width * scale), 1)
        pixels_13HW = functional.interpolate(pixels_13HW, (height, width), mode="bicubic", antialias=True)
    left, top = (side - width) // 2, (side - height) // 2
    return functional.pad(pixels_13HW[0].float(), (left, side - width - left, top, side - height - top))


def normalize(pixels_N3HW: Tensor) -> Tensor:
    """Pixels in 0..1 in CLIP's normalised colours."""
    mean, std = (pixels_N3HW.new_tensor(numbers)[:, None, None] for numbers in (CLIP_MEAN, CLIP_STD))
    return (pixels_N3HW - mean) / std


def clip_pixels(bytes_NHW3: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What `crop_squares` made, on the device and normalised: (N, 3, H, W). Only bytes travel there, in one piece."""
    pixels_N3HW = bytes_NHW3.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
    return normalize(pixels_N3HW).to(dtype)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the CPU, in memory that a GPU copies from by itself while the CPU goes on."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def check_aspect(image_HW3: np.ndarray) -> None:
    height, width = image_HW3.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InvalidImageError(f"an image is {width}x{height}; one side may be at most {MAX_ASPECT} times the other")
