"""Files that hold more than pixels: what is beside them neither stops the decoder nor costs anything."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images import PICTURE, encode
from support.odd_files import (
    add_to_jpeg,
    add_to_png,
    add_to_webp,
    camera_jpeg,
    claim_size,
    jpeg_with_scans,
    png_chunk,
    png_with_text,
)

from drpo_rewards.api import images
from drpo_rewards.api.image_files import MAX_PARTS, MAX_SEGMENTS, MAX_VIEWS, read_file
from drpo_rewards.errors import InvalidImageError, RequestTooLargeError

PHOTO = Image.fromarray(PICTURE)
UPRIGHT = encode(PHOTO)
GARBAGE = b"\xff\x00Exif\0\0MM\0*\xff\xff\xff\xff" * 3
PNG_BESIDE = [
    "eXIf", "iCCP", "tEXt", "zTXt", "iTXt", "pHYs", "gAMA", "cHRM", "sRGB", "bKGD", "hIST", "sBIT", "sPLT", "tIME",
    "acTL", "fcTL", "abCd", "caBX",
]  # fmt: skip
MANY_SEGMENTS = b"\xff\xd8" + b"\xff\xdd\x00\x04\x00\x00" * (MAX_SEGMENTS + 1)


def as_pillow_decodes(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
@pytest.mark.parametrize("interlaced", [False, True])
def test_rows_that_are_missing_are_no_black_rows(mode: str, interlaced: bool) -> None:
    """The chunks are whole, and so is their compressed data; only rows of the picture are not there."""
    for picture in (PHOTO, Image.new("RGB", (53, 30))):  # a black one has black rows at its end, and is whole
        header, rows = png_rows(picture.convert(mode), interlaced)
        np.testing.assert_array_equal(images.decode(png(header, rows)), as_pillow_decodes(png(header, rows)))
        for missing in (1, len(rows) // 30, len(rows) // 3):
            with pytest.raises(InvalidImageError, match=r"truncated or damaged|transparent pixels"):
                images.decode(png(header, rows[:-missing]))


def png_rows(picture: Image.Image, interlaced: bool) -> tuple[bytes, bytes]:
    """Header and PLTE of a PNG, and its rows before compression. Interlaced, each pass is filled with the byte 85."""
    file = encode(picture, "PNG")
    at, chunks = 8, dict[bytes, bytes]()
    while at < len(file):
        length, name = struct.unpack_from(">I4s", file, at)
        chunks[name] = chunks.get(name, b"") + file[at + 8 : at + 8 + length]
        at += 12 + length
    rows = zlib.decompress(chunks[b"IDAT"])
    if interlaced:
        width, height, bits, color = struct.unpack_from(">IIBB", chunks[b"IHDR"])
        channels = {0: 1, 2: 3, 3: 1, 4: 2}[color]
        rows = b""
        for left, top, across, down in ADAM7:
            columns, lines = len(range(left, width, across)), len(range(top, height, down))
            rows += (b"\0" + b"\x55" * ((columns * bits * channels + 7) // 8)) * lines if columns else b""
        chunks[b"IHDR"] = chunks[b"IHDR"][:-1] + b"\1"
    palette = png_chunk(b"PLTE", chunks[b"PLTE"]) if b"PLTE" in chunks else b""
    return png_chunk(b"IHDR", chunks[b"IHDR"]) + palette, rows


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(header: bytes, rows: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_has_the_scale_of_the_pixels(bits: int) -> None:
    """Pillow widens grey pixels of 2 and 4 bits to 8, but not the grey that is transparent."""
    side, top = 8, (1 << bits) - 1
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0))
    rows = (b"\0" + b"\xff" * bits) * side  # all pixels are white
    for grey in {0, 1, top - 1, top}:
        file = png(header + png_chunk(b"tRNS", struct.pack(">H", grey)), rows)
        if grey == top:
            with pytest.raises(InvalidImageError, match="transparent pixels"):
                images.decode(file)
        else:
            assert (images.decode(file) == 255).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_an_orientation_of_either_size_turns_the_picture(order: str, kind: int) -> None:
    value = struct.pack(f"{order}HH", 6, 0) if kind == 3 else struct.pack(f"{order}I", 6)
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    exif = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
    file = encode(PHOTO, "JPEG")
    body = b"Exif\0\0" + exif
    turned = file[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + file[2:]
    np.testing.assert_array_equal(images.decode(turned), np.rot90(images.decode(file), -1))


@pytest.mark.parametrize("palette", [None, b"", b"\xff\0", b"\xff\0\0" * 257])
def test_a_palette_is_needed_where_colours_come_from_it(palette: bytes | None) -> None:
    header, rows = png_rows(PHOTO.convert("P"), False)
    damaged = header[:25] + (b"" if palette is None else png_chunk(b"PLTE", palette))
    with pytest.raises(InvalidImageError, match="the colours of its palette are missing"):
        images.decode(png(damaged, rows))
    late = png(header[:25], rows).replace(png_chunk(b"IEND", b""), header[25:] + png_chunk(b"IEND", b""))
    with pytest.raises(InvalidImageError, match="the colours of its palette are missing"):
        images.decode(late)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_camera_picture_is_the_one_before_its_previews(progressive: bool) -> None:
    preview = Image.new("RGB", (30, 20), "red")
    file = encode(PHOTO, "MPO", save_all=True, append_images=[preview, PHOTO], progressive=progressive)
    np.testing.assert_array_equal(images.decode(file), as_pillow_decodes(file))
    assert images.decode(camera_jpeg(PHOTO, preview)).shape == PICTURE.shape


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"keep_rgb": True},
        {"restart_marker_blocks": 1},
        {"restart_marker_rows": 1, "progressive": True},
    ],
)
def test_jpeg_files_of_every_layout_are_whole(mode: str, options: dict[str, int]) -> None:
    file = encode(PHOTO.convert(mode), "JPEG", **options)
    np.testing.assert_array_equal(images.decode(file), as_pillow_decodes(file))
    np.testing.assert_array_equal(images.decode(add_to_jpeg(file, 0xE1, GARBAGE)), as_pillow_decodes(file))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("unicode", [False, True])
def test_text_of_any_size_is_skipped(compress: bool, unicode: bool) -> None:
    file = png_with_text(PHOTO, "workflow", "x" * 70_000_000 if compress else "x" * 2_000_000, compress, unicode)
    assert len(read_file(file).data) <= len(UPRIGHT)
    np.testing.assert_array_equal(images.decode(file), PICTURE)


def test_padding_before_a_segment_is_skipped() -> None:
    file = encode(PHOTO, "JPEG")
    np.testing.assert_array_equal(
        images.decode(file[:2] + b"\xff" * 70_000 + b"\xff\x01" + file[2:]), as_pillow_decodes(file)
    )


def test_the_time_for_headers_is_counted() -> None:
    counted = []

    class Limits(images.ImageLimits):
        def spend_time(self, cpu_s: float, field: str) -> None:
            counted.append(field)

    images.read_checked(UPRIGHT, field="images[3]", limits=Limits())
    assert counted == ["images[3]"]


def test_a_file_in_many_pieces_is_held_in_few() -> None:
    """Neighbours are one piece, and many pieces with something between them are copied together."""
    start = UPRIGHT.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", UPRIGHT, start)
    data, end = UPRIGHT[start + 8 : start + 8 + length], start + 12 + length
    pieces = [png_chunk(b"IDAT", data[at : at + 1]) for at in range(length)]
    assert length > MAX_VIEWS
    for between, most in [(b"", 1), (png_chunk(b"tEXt", b"a\0b"), MAX_VIEWS)]:
        file = UPRIGHT[:start] + between.join(pieces) + UPRIGHT[end:]
        assert len(read_file(file).parts) <= most
        np.testing.assert_array_equal(images.decode(file), PICTURE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_colour_profiles_of_any_size_are_skipped(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = encode(PHOTO, kind, **options)
    file = encode(PHOTO, kind, icc_profile=bytes(3_000_000), **options)
    np.testing.assert_array_equal(images.decode(file), as_pillow_decodes(plain))


@pytest.mark.parametrize("name", PNG_BESIDE)
def test_damaged_chunks_beside_the_pixels_are_skipped(name: str) -> None:
    for chunk in (
        png_chunk(name.encode(), GARBAGE),
        png_chunk(name.encode(), b""),
        png_chunk(name.encode(), bytes(40), crc=7),
    ):
        np.testing.assert_array_equal(images.decode(add_to_png(UPRIGHT, chunk)), PICTURE)


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_damaged_segments_beside_the_pixels_are_skipped(marker: int) -> None:
    plain = encode(PHOTO, "JPEG")
    for data in (
        GARBAGE,
        b"",
        b"JFXX\0" + GARBAGE,
        b"MPF\0" + GARBAGE,
        b"JFIF\0",
        b"Adobe\0",
        b"Exif\0\0" + GARBAGE,
        b"ICC_PROFILE\0\1\7",
    ):
        np.testing.assert_array_equal(images.decode(add_to_jpeg(plain, marker, data)), as_pillow_decodes(plain))


@pytest.mark.parametrize("name", [b"ICCP", b"EXIF", b"XMP ", b"abcd"])
def test_damaged_chunks_of_webp_are_skipped(name: bytes) -> None:
    np.testing.assert_array_equal(images.decode(add_to_webp(PHOTO, name, GARBAGE)), PICTURE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_are_turned_as_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera"  # in front of the orientation
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    lying = as_pillow_decodes(encode(PHOTO, kind, **options))
    turned = {
        1: lying, 2: lying[:, ::-1], 3: lying[::-1, ::-1], 4: lying[::-1], 5: lying.transpose(1, 0, 2),
        6: np.rot90(lying, -1), 7: np.rot90(lying, 2).transpose(1, 0, 2), 8: np.rot90(lying),
    }  # fmt: skip
    file = encode(PHOTO, kind, exif=exif, **options)
    np.testing.assert_array_equal(images.decode(file), turned[orientation])
    assert read_file(file).orientation == orientation


def test_one_frame_is_a_picture() -> None:
    count = png_chunk(b"acTL", struct.pack(">II", 1, 0))
    control = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 10, 12, 0, 0, 1, 10, 0, 0))
    np.testing.assert_array_equal(images.decode(add_to_png(UPRIGHT, count, control)), PICTURE)
    still = encode(PHOTO, "WEBP", lossless=True)[12:]
    sides = (9).to_bytes(3, "little") + (11).to_bytes(3, "little")
    frame = bytes(6) + sides + bytes(4) + still
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0x02) + sides + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    file = b"RIFF" + struct.pack("<I", len(body)) + body
    np.testing.assert_array_equal(images.decode(file), PICTURE)
    twice = body + body[body.index(b"ANMF") :]
    with pytest.raises(InvalidImageError, match="animated"):
        images.decode(b"RIFF" + struct.pack("<I", len(twice)) + twice)


def test_a_jpeg_with_12_bits_is_named_as_that() -> None:
    file = bytearray(encode(PHOTO, "JPEG"))
    file[file.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(InvalidImageError, match="12 bits a channel"):
        images.decode(bytes(file))


def test_scans_have_a_limit_and_are_counted() -> None:
    file = jpeg_with_scans(64, 48, 30)
    assert len(read_file(file).scans) == 40
    assert images.decode(file).shape == (48, 64, 3)
    with pytest.raises(InvalidImageError, match="more than 39 scans"):
        images.decode(file, limits=images.ImageLimits(max_scans=39))


class Budget(images.ImageLimits):
    """Allows a number of looks at the clock."""

    looks = 0

    def spend_time(self, cpu_s: float, field: str) -> None:
        assert cpu_s >= 0
        Budget.looks += 1
        if Budget.looks > 45:
            raise RequestTooLargeError(field)


def test_time_is_counted_at_every_scan() -> None:
    """Although all scans fit into one step of the decoder."""
    Budget.looks = 0
    with pytest.raises(RequestTooLargeError):
        images.decode(jpeg_with_scans(64, 48, 50), limits=Budget())
    assert Budget.looks == 46


@pytest.mark.parametrize("progressive", [False, True])
def test_a_header_that_the_bytes_cannot_fill_is_refused(progressive: bool) -> None:
    small = encode(Image.new("RGB", (16, 16)), "JPEG", progressive=progressive)
    with pytest.raises(InvalidImageError, match=r"states 4096x4096, which its \d+ bytes cannot hold"):
        images.decode(claim_size(small, 4096, 4096))
    flat = encode(Image.new("RGB", (1024, 1024)), "JPEG", progressive=progressive, optimize=True)
    assert images.decode(flat).shape == (1024, 1024, 3)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (add_to_png(UPRIGHT, *[png_chunk(b"abCd", b"")] * (MAX_PARTS + 1)), "more than 65536 parts"),
        (MANY_SEGMENTS + encode(PHOTO, "JPEG")[2:], "more than 4096 parts"),
        (add_to_png(UPRIGHT, png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4096, 4096, 8, 2, 0, 0, 0))), None),
        (UPRIGHT[:8] + UPRIGHT[33:], "without IHDR"),
        (b"\xff\xd8\xff\xd9", "ends before its pixels"),
        (b"\xff\xd8\xff\xda\0\4\1\2", "no size before the pixels"),
    ],
)
def test_other_files_are_refused_with_what_is_wrong(file: bytes, reason: str | None) -> None:
    if reason is None:  # a second header counts for nothing
        np.testing.assert_array_equal(images.decode(file), PICTURE)
        return
    with pytest.raises(InvalidImageError, match=reason):
        images.decode(file, field="images[1]")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_chunk_may_be_anywhere_before_the_pixels(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(PNG_BESIDE)).encode()
    content = data.draw(st.binary(max_size=200))
    crc = data.draw(st.sampled_from([None, 0]))
    if name == b"eXIf" and crc is None:
        content = zlib.compress(content)  # no orientation by chance
    np.testing.assert_array_equal(images.decode(add_to_png(UPRIGHT, png_chunk(name, content, crc))), PICTURE)


def test_large_pictures_are_decoded_exactly_too() -> None:
    """They are copied in strips, of which the last is smaller."""
    large = np.random.default_rng(1).integers(0, 256, (1201, 1100, 3), dtype=np.uint8)
    file = encode(Image.fromarray(large), compress_level=0)
    np.testing.assert_array_equal(images.decode(file), large)
