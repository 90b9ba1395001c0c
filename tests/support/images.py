"""Images as users send them: of any size and mode, and files that are accepted or refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from drpo_rewards.api.images import decode
from support.odd_files import (
    add_to_png,
    claim_size,
    deep_png,
    jpeg_with_scans,
    png_chunk,
    png_with_text,
)  # fmt: skip

SPECIAL = "a <|endoftext|> cat [SEP] <|image_pad|> <|Reward|><|im_end|> dog"
PROMPTS = (
    "a red circle",
    "Two CATS, left of  a dog!",
    "a very long prompt " * 60,
    SPECIAL,
    "ein Bär & 猫",
)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> np.ndarray:
    """Soft blobs with a little noise: (height, width, 3) uint8, as the service decodes a PNG file of that mode."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).convert(mode).save(file, format="PNG")
    return decode(file.getvalue())


def odd_pictures() -> list[np.ndarray]:
    """One image of each kind. Only the last one is square."""
    return [
        picture(301, 203, seed=1),  # odd sides, landscape
        picture(97, 260, seed=2),  # portrait
        picture(240, 180, "L", seed=3),  # grey
        picture(131, 257, "RGBA", seed=4),  # opaque alpha
        picture(16, 11, seed=5),  # smaller than the model's input
        picture(224, 224, seed=6),
    ]


PICTURE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decompression_bomb() -> bytes:
    """A PNG of 50,000 x 50,000 in a few bytes. Decoding it would take 7.5 GB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def refused_files() -> dict[str, tuple[bytes, str]]:
    """Files that the service refuses, by name: the file, and a part of the reason."""
    picture = Image.fromarray(PICTURE)
    transparent = np.dstack([PICTURE, np.full((12, 10), 254, np.uint8)])
    frames = {"save_all": True, "append_images": [Image.new("RGB", (10, 12))], "lossless": True}
    return {
        "text": (b"this is not an image", "not a PNG"),
        "empty": (b"", "not a PNG"),
        "gif": (encode(picture, "GIF"), "not a PNG"),
        "truncated": (encode(picture)[:-40], "truncated or damaged"),
        "half a header": (encode(picture)[:20], "truncated or damaged"),
        "bomb": (decompression_bomb(), "pixels"),
        "one pixel": (encode(Image.new("RGB", (1, 1))), "1x1"),
        "transparent": (encode(Image.fromarray(transparent)), "transparent"),
        "transparent palette": (encode(picture.quantize(8), transparency=0), "transparent"),
        "16 bits, grey": (deep_png(10, 12, 0), "16 bits a channel"),
        "16 bits, RGB": (deep_png(10, 12, 2), "16 bits a channel"),
        "16 bits, grey and alpha": (deep_png(10, 12, 4), "16 bits a channel"),
        "16 bits, RGBA": (deep_png(10, 12, 6), "16 bits a channel"),
        "many scans": (jpeg_with_scans(64, 64, 60), "more than 64 scans"),
        "header without pixels": (claim_size(encode(picture, "JPEG"), 4096, 4096), "cannot hold"),
        "cmyk": (encode(picture.convert("CMYK"), "JPEG"), "mode CMYK"),
        "animated": (encode(picture, "WEBP", **frames), "animated"),
        "animated png": (encode(picture, "PNG", save_all=True, append_images=frames["append_images"]), "animated"),
    }


def accepted_files() -> dict[str, tuple[bytes, np.ndarray]]:
    """Files that the service accepts, by name: the file, and the (H, W, 3) uint8 pixels that it decodes to."""
    picture, grey = Image.fromarray(PICTURE), PICTURE[:, :, 0]
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6  # a viewer turns it clockwise by 90 degrees
    palette = picture.quantize(16)
    opaque = np.dstack([PICTURE, np.full((12, 10), 255, np.uint8)])
    return {
        "png": (encode(picture), PICTURE),
        "lossless webp": (encode(picture, "WEBP", lossless=True), PICTURE),
        "grey": (encode(Image.fromarray(grey)), np.stack([grey] * 3, axis=-1)),
        "palette": (encode(palette), np.asarray(palette.convert("RGB"))),
        "opaque alpha": (encode(Image.fromarray(opaque)), PICTURE),
        "exif": (encode(picture, exif=on_its_side), np.rot90(PICTURE, k=-1)),
        "exif in a webp": (encode(picture, "WEBP", lossless=True, exif=on_its_side), np.rot90(PICTURE, k=-1)),
        "large profile": (encode(picture, icc_profile=bytes(1_200_000)), PICTURE),
        "large text": (png_with_text(picture, "workflow", "x" * 1_400_000, compress=True, unicode=False), PICTURE),
        "damaged exif": (add_to_png(encode(picture), png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")), PICTURE),
        "wrong checksum beside the pixels": (add_to_png(encode(picture), png_chunk(b"pHYs", bytes(9), crc=1)), PICTURE),
    }
