"""Pictures with rendered text, and the OCR reward with its real weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from drpo_rewards import rewards
from drpo_rewards.rewards.base import Reward

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@cache
def ocr() -> Reward:
    return rewards.load("ocr")


def render(
    *lines: str, font: str = "DejaVuSans", pixels: int = 48, degrees: float = 0, side: int = 512, ink: str = "black"
) -> np.ndarray:
    """Lines of text in the middle of a (side, side, 3) picture, turned counterclockwise."""
    image = Image.new("RGB", (side, side), "white")
    face = ImageFont.truetype(FONTS / f"{font}.ttf", pixels)
    ImageDraw.Draw(image).text((side / 2, side / 2), "\n".join(lines), ink, face, "mm", align="center")
    return np.asarray(image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white"))
