"""How the images of a call are prepared for sending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from drpo_rewards.api.images import Images, check_array, load
from drpo_rewards.errors import InvalidImageError


async def load_all(images: Images, image_field: Callable[[int], str]) -> Sequence[np.ndarray | bytes]:
    """Prepare all images for sending, in order. Files are read and PIL images converted in a thread.

    Args:
        images: as for `AsyncRankingClient.rank`.
        image_field: names an image by its index, for messages.
    """
    listed = as_list(images, "images")
    if isinstance(listed, np.ndarray):
        for index, image in enumerate(listed):
            check_array(image, field=image_field(index))
        return listed  # type: ignore[return-value]  # iterates as its (H, W, 3) pictures
    return await asyncio.to_thread(lambda: [load(image, field=image_field(i)) for i, image in enumerate(listed)])


def as_list(images: Images, what: str) -> Images:
    """Return images as something with a length. Refuse one image: a path would be taken for a list of letters.

    Args:
        images: the images.
        what: names them in messages.

    Raises:
        InvalidImageError: this is not a list of images.
    """
    if isinstance(images, np.ndarray):
        if images.ndim != 4:
            raise InvalidImageError(f"{what} is an array with the shape {images.shape}; give (K, H, W, 3), or a list")
        return images
    if isinstance(images, str | bytes | dict) or not isinstance(images, Iterable):
        raise InvalidImageError(f"{what} is a {type(images).__name__}; give a list of images")
    return list(images)
