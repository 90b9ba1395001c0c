"""Put a picture into the report."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

LARGEST_PICTURE = 384
"""Pixels of the longer side. Larger pictures are scaled down, so that the report can be sent by e-mail."""


def data_uri(file: Path, largest: int = LARGEST_PICTURE) -> str:
    """The picture as a data URI: the file itself if it is small, otherwise a smaller copy."""
    with Image.open(file) as picture:
        if max(picture.size) <= largest and file.suffix in (".png", ".webp"):
            data, kind = file.read_bytes(), file.suffix[1:]
        else:
            small = picture.convert("RGB")
            small.thumbnail((largest, largest), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=90)
            data, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
