"""A grid of pictures: a row for each model, a column for each prompt, all from the same noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from drpo.training.files import write_bytes

_LABEL = 150
_TITLE = 46
_CELL = 160


def write_grid(path: Path, rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]], titles: Sequence[str]) -> None:
    """Writes a grid as a WebP file.

    Args:
        path: the file.
        rows: the name of each row, and its pictures (H, W, 3), one for each title.
        titles: the prompts.

    Raises:
        StorageError: it could not be written.
    """
    canvas = Image.new("RGB", (_LABEL + _CELL * len(titles), _TITLE + _CELL * len(rows)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for column, title in enumerate(titles):
        pen.multiline_text((_LABEL + column * _CELL + 4, 4), _wrap(title, 24, 3), fill="black", font=font, spacing=1)
    for number, (name, pictures) in enumerate(rows):
        top = _TITLE + number * _CELL
        pen.multiline_text((6, top + _CELL // 2 - 14), _wrap(name, 22, 3), fill="black", font=font)
        for column, picture_HWC in enumerate(pictures):
            picture = Image.fromarray(picture_HWC)
            picture.thumbnail((_CELL - 4, _CELL - 4))
            scale = (_CELL - 4) / max(picture.size)
            if scale > 1:
                picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            canvas.paste(picture, (_LABEL + column * _CELL + 2, top + 2))
    buffer = io.BytesIO()
    canvas.save(buffer, "WEBP", quality=90)
    write_bytes(path, buffer.getbuffer())


def _wrap(text: str, width: int, most: int) -> str:
    """At most `most` lines of about `width` characters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(line[: width + 4] for line in lines[:most])
