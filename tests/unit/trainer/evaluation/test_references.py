"""The reference pictures of `drpo eval --fid`: what a folder of somebody's may hold."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from drpo.errors import ConfigError
from drpo.evaluation.table.distribution import read_references

RED = Image.new("RGB", (16, 16), "red")


def save(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def bomb() -> bytes:
    """A header of 60,000 x 60,000 pixels, and nothing behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (save(Image.effect_noise((64, 64), 99))[:2000], "truncated"),
        (b"no picture", "not a PNG, JPEG or WebP"),
        (b"", "not a PNG, JPEG or WebP"),
        (save(Image.new("I;16", (16, 16))), "16 bits"),
        (save(RED, save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")]), "animated"),
        (save(RED.convert("CMYK"), format="JPEG"), "CMYK"),
        (save(Image.new("RGBA", (16, 16))), "transparent"),
        (bomb(), "60000x60000"),
    ],
    ids=["truncated", "text", "empty", "16 bit", "animated", "CMYK", "transparent", "bomb"],
)
def test_a_reference_that_cannot_be_taken_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "sub [x]" / "more.png"
    folder.mkdir(parents=True)
    (folder / "größe.PNG").write_bytes(save(RED))
    (tmp_path / "notes.txt").write_text("no picture")
    assert [one.shape for one in read_references(str(tmp_path))] == [(16, 16, 3)]
    (folder / "bad.png").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        list(read_references(str(tmp_path)))
    assert str(error.value).startswith(f"--fid: cannot read {folder / 'bad.png'}: ")
    assert reason in str(error.value)
