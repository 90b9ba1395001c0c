"""Small preference sets on the disk: red images are chosen, blue ones rejected."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PROMPTS = ("a red circle", "two green square", "a blue triangle", "a photo of a circle")

COLORS = {"red": (225, 30, 30), "blue": (30, 30, 225)}


def draw_image(color: str, seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An image (width, height) of a colour with some noise."""
    noise = np.random.default_rng(seed).integers(-25, 26, size=(size[1], size[0], 3))
    return Image.fromarray((np.array(COLORS[color]) + noise).clip(0, 255).astype(np.uint8))


def encode_image(color: str, seed: int) -> bytes:
    """The same image as the content of a PNG file."""
    buffer = io.BytesIO()
    draw_image(color, seed).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(folder: Path, prompts: Sequence[str] = PROMPTS, images: int = 2) -> Path:
    """A table preferences.jsonl with `images` chosen and as many rejected images for each prompt."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, prompt in enumerate(prompts):
        row: dict[str, Any] = {"prompt": prompt, "chosen": [], "rejected": []}
        for image in range(images):
            for side, color in (("chosen", "red"), ("rejected", "blue")):
                name = f"images/{number}-{image}-{side}.png"
                draw_image(color, 100 * number + image).save(folder / name)
                row[side].append(name)
        lines.append(json.dumps(row))
    table = folder / "preferences.jsonl"
    table.write_text("\n".join(lines) + "\n")
    return table


def pick_row(caption: str | None, seed: int, label_0: float = 1.0, **changed: Any) -> dict[str, Any]:
    """A row of Pick-a-Pic: the preferred image is red, the other one blue."""
    first, second = ("red", "blue") if label_0 == 1 else ("blue", "red")
    row = {
        "caption": caption,
        "jpg_0": encode_image(first, seed),
        "jpg_1": encode_image(second, seed),
        "label_0": label_0,
        "has_label": True,
        "user_id": 7,
    }
    return row | changed


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A parquet file with these rows."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def write_pickapic(folder: Path) -> Path:
    """Two files in the layout of Pick-a-Pic v2, and one of another split. Two prompts have rows in both files."""
    first = [pick_row(prompt, number) for number, prompt in enumerate(PROMPTS)]
    second = [pick_row(prompt, 10 + number, label_0=0.0) for number, prompt in enumerate(PROMPTS[:2])]
    ties = [pick_row("a tie", 20, label_0=0.5), pick_row("no label", 21, has_label=False), pick_row("", 22)]
    write_parquet(folder / "data" / "train-00000-of-00002-ab12.parquet", [*first, *ties])
    write_parquet(folder / "data" / "train-00001-of-00002-cd34.parquet", second)
    write_parquet(folder / "data" / "test-00000-of-00001-ef56.parquet", [pick_row("a test prompt", 30)])
    return folder
