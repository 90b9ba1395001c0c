"""Files as cameras, editors and attackers make them: pixels beside previews, profiles, text, and damage."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, PngImagePlugin


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def add_to_png(file: bytes, *chunks: bytes) -> bytes:
    """Put chunks behind the header, which ends at byte 33."""
    return file[:33] + b"".join(chunks) + file[33:]


def add_to_jpeg(file: bytes, marker: int, data: bytes) -> bytes:
    """Put a segment behind the first two bytes."""
    return file[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + file[2:]


def add_to_webp(image: Image.Image, name: bytes, data: bytes) -> bytes:
    """An extended WebP file with one more chunk at its end."""
    file = save(image, "WEBP", lossless=True, exif=Image.Exif())
    if file[12:16] != b"VP8X":
        sides = (image.width - 1).to_bytes(3, "little") + (image.height - 1).to_bytes(3, "little")
        file = file[:12] + b"VP8X" + struct.pack("<II", 10, 0) + sides + file[12:]
    file += name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return file[:4] + struct.pack("<I", len(file) - 8) + file[8:]


def jpeg_with_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG in few bytes whose decoding passes over the picture `scans` times more than usual."""
    file = save(Image.new("RGB", (width, height), (90, 140, 200)), "JPEG", progressive=True)
    begins = [at for at in range(len(file)) if file[at : at + 2] == b"\xff\xda"]
    table = file.rindex(b"\xff\xc4", 0, begins[-1])  # the last scan's own Huffman table
    return file[:-2] + file[table:-2] * scans + file[-2:]


def claim_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its header."""
    at = next(at for at in range(len(jpeg)) if jpeg[at : at + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def camera_jpeg(picture: Image.Image, preview: Image.Image) -> bytes:
    """A picture with a preview behind it, as cameras and phones save it (MPO)."""
    return save(picture, "MPO", save_all=True, append_images=[preview])


def png_with_text(picture: Image.Image, key: str, text: str, compress: bool, unicode: bool) -> bytes:
    info = PngImagePlugin.PngInfo()
    if unicode:
        info.add_itxt(key, text, zip=compress)
    else:
        info.add_text(key, text, zip=compress)
    return save(picture, "PNG", pnginfo=info)


def deep_png(width: int, height: int, color: int) -> bytes:
    """A PNG with 16 bits a channel: grey (0), RGB (2), grey and alpha (4) or RGBA (6)."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    rows = (b"\0" + b"\xff\xff" * channels * width) * height
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")
