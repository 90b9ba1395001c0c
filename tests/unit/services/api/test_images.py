"""Decoding of images: accepted ones are exact, and an error names a refused one and the reason."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images import PICTURE, accepted_files, encode, refused_files

from drpo_rewards.api import images
from drpo_rewards.errors import InvalidImageError, InvalidRequestError
from drpo_rewards.operations.rank import RankOptions


@pytest.mark.parametrize("name", accepted_files())
def test_accepted_images_are_decoded_exactly(name: str) -> None:
    data, expected = accepted_files()[name]
    np.testing.assert_array_equal(images.decode(data), expected)


def test_jpeg_is_decoded_as_pillow_does() -> None:
    data = encode(Image.fromarray(PICTURE), "JPEG")
    np.testing.assert_array_equal(images.decode(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("name", refused_files())
def test_ambiguous_images_are_refused(name: str) -> None:
    data, reason = refused_files()[name]
    with pytest.raises(InvalidImageError, match=reason) as caught:
        images.decode(data, field="images[3]")
    assert caught.value.field == "images[3]"


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_decoded(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    damaged = bytearray(encode(Image.fromarray(PICTURE), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    reason = ""
    try:
        picture = images.decode(bytes(damaged))
    except InvalidImageError as error:
        reason = str(error)
    assert " at 0x" not in reason  # Pillow's messages may have addresses of objects
    assert reason or (picture.dtype == np.uint8 and picture.ndim == 3)


def test_rgb8_must_fit_its_size() -> None:
    np.testing.assert_array_equal(images.from_rgb8(PICTURE.tobytes(), 10, 12), PICTURE)
    with pytest.raises(InvalidImageError, match="360 bytes, but has 359"):
        images.from_rgb8(PICTURE.tobytes()[:-1], 10, 12)


def test_groups_have_limits() -> None:
    limits = images.ImageLimits(min_side=8, max_pixels=200, max_group_pixels=250)
    options = RankOptions(prompt="p")
    images.check_images([PICTURE, PICTURE], options, limits)
    with pytest.raises(InvalidRequestError, match="360 pixels together"):
        images.check_images([PICTURE] * 3, options, limits)
    with pytest.raises(InvalidRequestError, match="this request has 1"):
        images.check_images([PICTURE], options)
    with pytest.raises(InvalidRequestError, match="this request has 257"):
        images.check_images([PICTURE] * 257, options)
    with pytest.raises(InvalidImageError, match="float64") as caught:
        images.check_images([PICTURE, PICTURE / 255], options)
    assert caught.value.field == "images[1]"


def test_clients_may_give_images_in_any_form(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(PICTURE)))
    assert images.load(PICTURE) is PICTURE
    np.testing.assert_array_equal(images.load(Image.fromarray(PICTURE)), PICTURE)
    assert images.load(path) == images.load(str(path)) == images.load(path.read_bytes()) == path.read_bytes()
    one = np.zeros((1, 1, 3), np.uint8)
    assert images.load(one) is one  # clients do not limit sizes; the service does
    with pytest.raises(InvalidImageError, match="0x4"):
        images.load(np.zeros((4, 0, 3), np.uint8))
    with pytest.raises(InvalidImageError, match="0x9"):
        images.load(Image.new("RGB", (0, 9)))
    with pytest.raises(InvalidImageError, match="cannot read"):
        images.load(tmp_path / "none.png")
    with pytest.raises(InvalidImageError, match="int"):
        images.load(3)  # type: ignore[arg-type]


def test_webp_has_a_smaller_limit_than_other_formats() -> None:
    """Pillow makes other threads wait while it copies what it decoded."""
    flat = Image.new("RGB", (2048, 2056))
    assert images.decode(encode(flat, "PNG")).shape == (2056, 2048, 3)
    with pytest.raises(InvalidImageError, match=r"WebP file of 2048x2056; at most 4194304 pixels .* send PNG, JPEG"):
        images.decode(encode(flat, "WEBP", lossless=True))
    allowed = images.decode(encode(flat, "WEBP", lossless=True), limits=images.ImageLimits(max_webp_pixels=2048 * 2056))
    assert allowed.shape == (2056, 2048, 3)


def test_a_picture_of_a_client_that_cannot_be_sent_says_why(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as closed:
        pass
    for picture, reason in (
        (closed, "first cannot be read: "),
        (Image.new("CMYK", (16, 16)), "first has mode CMYK; "),
        (Image.new("RGBA", (16, 16)), "first has transparent pixels; "),
    ):
        with pytest.raises(InvalidImageError, match=f"^{reason}[^ ]"):
            images.load(picture, field="first")
