"""How often the OCR reward reads rendered text exactly: the table of the rewards' README, which this prints anew."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from support.rendered_text import ocr, render

from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.ocr.text import compare

pytestmark = pytest.mark.thorough

WORDS = ("Orchard", "welcome", "SILVER", "market", "Thunder", "bicycle", "KITCHEN", "autumn")


def score(image: np.ndarray, *texts: str) -> Score:
    return ocr().score([ScoreItem(image, " and ".join(f'"{text}"' for text in texts))])[0]


@pytest.mark.timeout(900)
def test_accuracy_by_font_size_and_rotation(capsys: pytest.CaptureFixture[str]) -> None:
    """At least 95 % of single words of 24 pixels and more are exact; the rest is printed as it is."""
    rows: list[tuple[str, str, list[float]]] = []
    plain: list[float] = []
    for font, pixels in itertools.product(("DejaVuSans", "DejaVuSerif-Italic", "DejaVuSansMono-Bold"), (24, 36, 64)):
        exact = measure(WORDS, font=font, pixels=pixels)
        rows.append((font, f"{pixels} pixels", exact))
        plain += exact
    rows += [("DejaVuSans", f"{pixels} pixels", measure(WORDS[:4], pixels=pixels)) for pixels in (12, 16)]
    for degrees in (5, 15, 45, 90, 180):
        rows.append(("DejaVuSans", f"36 pixels, {degrees} degrees", measure(WORDS[:4], pixels=36, degrees=degrees)))
    with capsys.disabled():
        print("\n| font | text | exact |\n|---|---|---|")
        for font, text, exact in rows:
            print(f"| {font} | {text} | {np.mean(exact):.0%} |")
        print(f"| all three | 24 pixels and more | {np.mean(plain):.0%} of {len(plain)} |")
    assert np.mean(plain) >= 0.95


def measure(words: Sequence[str], **style: object) -> list[float]:
    items = [ScoreItem(render(word, **style), f'"{word}"') for word in words]
    return [found.details["exact"] for found in ocr().score(items) if found.details]


def test_two_lines_two_texts_and_pictures_of_odd_shapes() -> None:
    picture = render("GRAND", "OPENING", ink="navy")
    for texts, exact in ((["Grand Opening"], 1), (["opening", "grand"], 1), (["GRAND"], 0)):
        found = score(picture, *texts)
        assert (found.value, (found.details or {})["exact"]) == (1, exact)
    assert score(picture, "opening", "closing").value == pytest.approx(
        0.5 + 0.5 * compare("GRANDOPENING", ["closing"]).similarity
    )
    for height, width in ((1, 1), (8, 900), (900, 8)):
        assert score(np.full((height, width, 3), 90, np.uint8), "a").value == 0
