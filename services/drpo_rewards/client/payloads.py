"""How the images of a call are prepared for sending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from drpo_rewards.api.arrays import is_array, to_pixels
from drpo_rewards.api.images import ImageLike, Images, load
from drpo_rewards.errors import InvalidImageError


def load_all(images: Images, image_field: Callable[[int], str]) -> Sequence[np.ndarray | bytes]:
    """Prepare all images for sending, in order: files are read, and everything else becomes uint8 pixels.

    Args:
        images: as for `AsyncRankingClient.rank`.
        image_field: names an image by its index, for messages.

    Raises:
        InvalidImageError: one of them is not an image, or cannot be read.
    """
    listed = as_list(images, "images")
    if isinstance(listed, list):
        return [load(image, field=image_field(index)) for index, image in enumerate(listed)]
    return to_pixels(listed, field="images")  # type: ignore[return-value]  # iterates as its (H, W, 3) pictures


def as_list(images: Images, field: str) -> list[ImageLike] | Any:
    """Return images as something with a length: a list, or an array of four axes.

    One image is refused, because a path would be taken for a list of letters, and a set, because it has no order.

    Args:
        images: the images.
        field: names them in errors.

    Raises:
        InvalidImageError: this is not a list of images.
    """
    if is_array(images):
        if len(images.shape) != 4:
            raise InvalidImageError(
                f"{field} is an array with the shape {tuple(images.shape)}; give (K, H, W, 3), (K, 3, H, W), or a list",
                field=field,
            )
        return images
    if isinstance(images, str | bytes | Mapping | Set) or not isinstance(images, Iterable):
        raise InvalidImageError(f"{field} is a {type(images).__name__}; give a list of images", field=field)
    return list(images)
