"""Conversion of images to protobuf messages and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from drpo_rewards.api.contract import Options
from drpo_rewards.errors import InvalidImageError
from drpo_rewards.v1 import ranking_pb2 as pb


def images_to_proto(options: Options, images: Sequence[np.ndarray | bytes]) -> Iterator[pb.Image]:
    """Make one message per image. Arrays travel as RGB8, lossless; a file's bytes as they are.

    Raises:
        InvalidRequestError: there are too few or too many images for the request.
    """
    options.check_count(len(images))
    return (_image_to_proto(image) for image in images)


def image_from_proto(image: pb.Image, field: str) -> bytes | tuple[bytes, int, int]:
    """Read one image: a file's bytes, or RGB8 data with its width and height.

    Raises:
        InvalidImageError: the message is empty; the error names `field`.
    """
    kind = image.WhichOneof("content")
    if kind == "encoded":
        return image.encoded
    if kind == "rgb8":
        return image.rgb8.data, image.rgb8.width, image.rgb8.height
    raise InvalidImageError(f"{field} has no content", field=field)


def _image_to_proto(image: np.ndarray | bytes) -> pb.Image:
    if isinstance(image, bytes):
        return pb.Image(encoded=image)
    height, width, _ = image.shape
    return pb.Image(rgb8=pb.Rgb8(width=width, height=height, data=image.tobytes()))
