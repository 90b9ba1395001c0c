"""Images in: what is taken is exact, what is refused says which image and why."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drpo_rewards import images
from drpo_rewards.contract import RankOptions
from drpo_rewards.errors import InvalidImageError, InvalidRequestError

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_files_come_back_exactly(kind: str, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(images.decode(file(Image.fromarray(PICTURE), kind, **options)), PICTURE)


def test_jpeg_is_what_pillow_makes_of_it() -> None:
    data = file(Image.fromarray(PICTURE), "JPEG")
    np.testing.assert_array_equal(images.decode(data), np.asarray(Image.open(io.BytesIO(data))))


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn it clockwise to see it upright
    data = file(Image.fromarray(PICTURE), "PNG", exif=exif)
    np.testing.assert_array_equal(images.decode(data), np.rot90(PICTURE, k=-1))


def test_grey_and_palette_become_rgb() -> None:
    grey = PICTURE[:, :, 0]
    np.testing.assert_array_equal(images.decode(file(Image.fromarray(grey))), np.stack([grey] * 3, axis=-1))
    palette = Image.fromarray(PICTURE).quantize(16)
    np.testing.assert_array_equal(images.decode(file(palette)), np.asarray(palette.convert("RGB")))


def test_an_opaque_alpha_channel_is_dropped() -> None:
    opaque = np.dstack([PICTURE, np.full((12, 10), 255, np.uint8)])
    np.testing.assert_array_equal(images.decode(file(Image.fromarray(opaque))), PICTURE)


def refused() -> dict[str, tuple[bytes, str]]:
    picture = Image.fromarray(PICTURE)
    see_through = np.dstack([PICTURE, np.full((12, 10), 254, np.uint8)])
    deep = Image.fromarray(np.full((12, 10), 40_000, np.uint16))
    frames = {"save_all": True, "append_images": [Image.new("RGB", (10, 12))], "lossless": True}
    return {
        "text": (b"this is no picture", "not a PNG"),
        "empty": (b"", "not a PNG"),
        "gif": (file(picture, "GIF"), "not a PNG"),
        "truncated": (file(picture)[:-40], "truncated or damaged"),
        "half a header": (file(picture)[:20], "images\\[3\\]"),
        "one pixel": (file(Image.new("RGB", (1, 1))), "1x1"),
        "transparent": (file(Image.fromarray(see_through)), "transparent"),
        "transparent palette": (file(picture.quantize(8), transparency=0), "transparent"),
        "16 bits": (file(deep), "mode I;16"),
        "cmyk": (file(picture.convert("CMYK"), "JPEG"), "mode CMYK"),
        "animated": (file(picture, "WEBP", **frames), "animated"),
    }


@pytest.mark.parametrize("name", refused())
def test_what_would_be_a_guess_is_refused(name: str) -> None:
    data, reason = refused()[name]
    with pytest.raises(InvalidImageError, match=reason) as caught:
        images.decode(data, field="images[3]")
    assert caught.value.field == "images[3]"


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    """A PNG of 50,000 x 50,000 in a few bytes. Decoding it would take 7.5 GB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    with pytest.raises(InvalidImageError, match="pixels"):
        images.decode(bomb)


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_decoded_never_worse(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    damaged = bytearray(file(Image.fromarray(PICTURE), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    try:
        picture = images.decode(bytes(damaged))
    except InvalidImageError:
        return
    assert picture.dtype == np.uint8
    assert picture.ndim == 3


def test_rgb8_has_to_fit_its_size() -> None:
    np.testing.assert_array_equal(images.from_rgb8(PICTURE.tobytes(), 10, 12), PICTURE)
    with pytest.raises(InvalidImageError, match="360 bytes, but has 359"):
        images.from_rgb8(PICTURE.tobytes()[:-1], 10, 12)


def test_base64_and_data_uris() -> None:
    text = base64.b64encode(file(Image.fromarray(PICTURE))).decode()
    np.testing.assert_array_equal(images.from_base64(text), PICTURE)
    np.testing.assert_array_equal(images.from_base64(f"data:image/png;base64,{text}"), PICTURE)
    for wrong, reason in [
        ("*" + text, "not valid base64"),
        ("data:image/png," + text, "not base64"),
        ("http://example.org/a.png", "fetches none"),
        ("file:///etc/passwd", "fetches none"),
    ]:
        with pytest.raises(InvalidImageError, match=reason):
            images.from_base64(wrong)


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


def test_a_client_may_give_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file(Image.fromarray(PICTURE)))
    assert images.load(PICTURE) is PICTURE
    np.testing.assert_array_equal(images.load(Image.fromarray(PICTURE)), PICTURE)
    assert images.load(path) == images.load(str(path)) == images.load(path.read_bytes()) == path.read_bytes()
    with pytest.raises(InvalidImageError, match="cannot read"):
        images.load(tmp_path / "none.png")
    with pytest.raises(InvalidImageError, match="int"):
        images.load(3)  # type: ignore[arg-type]
