"""JPEG files whose last two bytes are missing: whole pictures to a browser, and hard to tell from truncated ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from support.images import PICTURE, encode

from drpo_rewards.api import images
from drpo_rewards.api.image_files import read_file
from drpo_rewards.errors import InvalidImageError

PHOTO = Image.fromarray(PICTURE)


def as_pillow_decodes(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"quality": 20, "optimize": True}])
@pytest.mark.parametrize("picture", [PHOTO, Image.new("RGB", (53, 30), (90, 140, 200))])
def test_a_jpeg_may_lack_its_end_and_nothing_else(picture: Image.Image, options: dict[str, int], mode: str) -> None:
    """Some cameras leave the last two bytes out. Of a file that was cut further, a row is missing."""
    file = encode(picture.convert(mode), "JPEG", **options)
    for end in (2, 1):
        np.testing.assert_array_equal(images.decode(file[:-end]), as_pillow_decodes(file))
    for end in (*range(4, 12), 20):
        with pytest.raises(InvalidImageError, match="truncated or damaged"):
            images.decode(file[:-end])


def test_a_jpeg_without_its_end_is_decoded_twice() -> None:
    file = encode(PHOTO.resize((512, 512)), "JPEG")
    assert read_file(file[:-2]).decode_s == pytest.approx(2 * read_file(file).decode_s, rel=0.1)


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 2}])
def test_a_jpeg_in_parts_must_have_its_end(options: dict[str, int]) -> None:
    """Without it, nobody could tell whether a scan, or all blocks after a restart, are missing."""
    with pytest.raises(InvalidImageError, match="truncated or damaged"):
        images.decode(encode(PHOTO, "JPEG", **options)[:-2])
