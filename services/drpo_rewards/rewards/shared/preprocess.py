"""Preparation of pictures for the models of the CLIP family, and of prompts as plain text.

The models differ only in the geometry of pictures. A wrong one changes the score without an error.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from drpo_rewards.errors import InvalidImageError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_ASPECT = 200  # a picture one pixel wide would take gigabytes when it is scaled up

Crop = Literal["floor", "round"]


def crop_square(image_HW3: np.ndarray, side: int, crop: Crop) -> np.ndarray:
    """Scale the shorter side to `side` (PIL, bicubic), then crop the centre: (side, side, 3) uint8.

    Args:
        image_HW3: (H, W, 3) uint8.
        side: the result's side in pixels.
        crop: how to halve an odd number of surplus pixels. "floor" is transformers' CLIP processor; "round" is
            torchvision's CenterCrop, with which half of the public rewards were trained. They differ by one pixel
            where (surplus % 4) is 3.
    """
    check_aspect(image_HW3)
    height, width = image_HW3.shape[:2]
    short, long = min(height, width), max(height, width)
    longer = int(side * long / short)
    size = (side, longer) if width <= height else (longer, side)
    scaled = Image.fromarray(image_HW3).resize(size, Image.Resampling.BICUBIC)
    left, top = (_offset(length - side, crop) for length in size)
    return np.asarray(scaled.crop((left, top, left + side, top + side)))


def _offset(surplus: int, crop: Crop) -> int:
    return surplus // 2 if crop == "floor" else round(surplus / 2)  # Python rounds a half to the even neighbour


def crop_pixels(pixels_N3HW: Tensor, side: int, crop: Crop) -> Tensor:
    """Crop pixels in 0..1 as `crop_square` crops pictures, but differentiably: (N, 3, side, side)."""
    height, width = pixels_N3HW.shape[2:]
    short, long = min(height, width), max(height, width)
    longer = int(side * long / short)
    scaled_N3HW = scale_pixels(pixels_N3HW, *((longer, side) if width <= height else (side, longer)))
    top, left = (_offset(length - side, crop) for length in scaled_N3HW.shape[2:])
    return scaled_N3HW[:, :, top : top + side, left : left + side]


def scale_pixels(pixels_N3HW: Tensor, height: int, width: int) -> Tensor:
    """Scale pixels in 0..1 to a size (bicubic, antialiased), differentiably. They stay in 0..1, as in a picture."""
    if pixels_N3HW.shape[2:] == (height, width):
        return pixels_N3HW
    return functional.interpolate(pixels_N3HW, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def crop_squares(images: Sequence[np.ndarray], side: int, crop: Crop) -> Tensor:
    """Crop each image with `crop_square`, to (N, side, side, 3) uint8, on all cores.

    PIL scales without Python's lock.
    """
    squares_NSS3 = np.empty((len(images), side, side, 3), np.uint8)

    def fill(index: int) -> None:
        squares_NSS3[index] = crop_square(images[index], side, crop)

    list(_threads().map(fill, range(len(images))))
    return torch.from_numpy(squares_NSS3)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads of this process that prepare pictures."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores, "prepare-pictures")


def pad_square(image_HW3: np.ndarray, side: int) -> Tensor:
    """Scale and pad a picture as `pad_pixels` does: (3, side, side) float32 in 0..1."""
    check_aspect(image_HW3)
    # In float64: torch's float32 filter is off by up to 3e-6, more than anything else here.
    pixels_13HW = torch.from_numpy(np.array(image_HW3)).permute(2, 0, 1)[None].double() / 255
    return pad_pixels(pixels_13HW, side)[0].float()


def pad_pixels(pixels_N3HW: Tensor, side: int) -> Tensor:
    """Scale the longer side to `side` (bicubic, antialiased) and pad with black: (N, 3, side, side).

    HPSv2 scores the whole picture, so nothing is cropped. The padding is black before the colours are normalised.
    """
    height, width = pixels_N3HW.shape[2:]
    scale = side / max(height, width)
    if scale != 1:
        height, width = max(round(height * scale), 1), max(round(width * scale), 1)
        pixels_N3HW = functional.interpolate(pixels_N3HW, (height, width), mode="bicubic", antialias=True)
    left, top = (side - width) // 2, (side - height) // 2
    return functional.pad(pixels_N3HW, (left, side - width - left, top, side - height - top))


def normalize(pixels_N3HW: Tensor) -> Tensor:
    """Normalise the colours of pixels in 0..1 as CLIP does."""
    mean, std = _colors(pixels_N3HW)
    return (pixels_N3HW - mean) / std


def _colors(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return CLIP's mean and standard deviation of each colour, on the device of `like`."""
    mean, std = (like.new_tensor(numbers)[:, None, None] for numbers in (CLIP_MEAN, CLIP_STD))
    return mean, std


def clip_pixels(bytes_NHW3: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copy pictures from `crop_squares` to the device and normalise them there: (N, 3, H, W).

    One block of bytes is copied, a quarter of what the normalised pixels take in float32.
    """
    pixels_N3HW = bytes_NHW3.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean, std = _colors(pixels_N3HW)
    return pixels_N3HW.div_(255).sub_(mean).div_(std).to(dtype)  # in place: each new block would cost as much again


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor in pinned memory if `device` is a GPU, which can copy from it while the CPU does other work."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def check_aspect(image_HW3: np.ndarray) -> None:
    """Raise InvalidImageError if one side is more than MAX_ASPECT times the other."""
    height, width = image_HW3.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InvalidImageError(f"an image is {width}x{height}; one side may be at most {MAX_ASPECT} times the other")


def break_special_tokens(prompt: str, tokenizer: Any) -> str:
    """Break every special or added token of the (transformers) tokenizer in a prompt by a space: "< |image_pad|>".

    A prompt is plain text. Otherwise one with `<|endoftext|>` would end CLIP's text early, and one with `<|image_pad|>`
    would ask a vision-language model for an image that is not there.
    """
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    for token in sorted(special, key=len, reverse=True):
        if len(token) > 1:  # a single character, such as the padding "!" of some CLIPs, is an ordinary word
            prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
    return prompt
