"""The OCR reward on rendered text, with the real weights of its package, and its text rules against plain ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest
from support.rendered_text import ocr, render

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, InvalidRequestError
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.ocr.text import compare, find_targets


def test_it_reads_rendered_text_and_tells_similar_text_apart() -> None:
    right, similar, nothing = (
        ScoreItem(image, 'a sign that says "Orchard"')
        for image in (render("Orchard", pixels=24), render("Orchid"), render())
    )
    scores = ocr().score([right, similar, nothing])
    assert [found.value for found in scores] == [1, pytest.approx(1 - 2 / 7), 0]
    assert [found.details["exact"] for found in scores if found.details] == [1, 0, 0]
    assert scores[0].details == {"exact": 1, "read": ["Orchard"], "wanted": ["Orchard"]}
    assert scores[2].details == {"exact": 0, "read": [], "wanted": ["Orchard"]}


@pytest.mark.parametrize(
    ("prompt", "metadata", "targets"),
    [
        ('a sign that says "OPEN 24h"', None, ["OPEN 24h"]),
        ("two signs, “left” and “right”", None, ["left", "right"]),
        ("a „Tür“ or «porte» or 「扉」", None, ["Tür", "porte", "扉"]),
        ("the dog's sign says 'don't walk'", None, ["don't walk"]),
        ("""a 'board' with "it's late" on it""", None, ["it's late"]),
        ('a sign that says "OPEN"', {"text": "CLOSED", "tag": "ocr"}, ["CLOSED"]),
        ("a sign", {"text": ["one", "two"]}, ["one", "two"]),
        ('"" and "x"', {}, ["x"]),
    ],
)
def test_the_targets_are_in_quotes_or_in_the_metadata(
    prompt: str, metadata: dict[str, object] | None, targets: list[str]
) -> None:
    assert find_targets(prompt, metadata) == targets


@pytest.mark.parametrize(
    ("prompt", "metadata", "message"),
    [
        ("a sign that says OPEN", None, "in quotes in the prompt"),
        ("the dog's bone and the cats' toy", None, "in quotes in the prompt"),
        ('a 5" screen', {"tag": "x"}, "in quotes in the prompt"),
        ('a sign "  "', None, "in quotes in the prompt"),
        ('a sign "x"', {"text": " "}, "in quotes in the prompt"),
        ('a sign "x"', {"text": 5}, "must be text, or a list of texts"),
        ('a sign "x"', {"text": ["a", None]}, "must be text, or a list of texts"),
    ],
)
def test_without_a_target_the_request_is_refused(prompt: str, metadata: dict[str, object] | None, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        find_targets(prompt, metadata)


def distance(a: str, b: str) -> int:
    """The edit distance, by its recursive definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


@pytest.mark.parametrize(
    ("read", "target"),
    [("helo", "hello"), ("", "abc"), ("Hello World", "hello"), ("xyzxyzx", "abc"), ("O P E N", "open"), ("ＡＢ", "ab")],
)
def test_the_similarity_is_flow_grpos(read: str, target: str) -> None:
    """flow_grpo takes away spaces and case; a text that contains the target has distance 0; the distance is capped."""
    plain = read.replace(" ", "").lower().replace("ａｂ", "ab")
    expected = 0 if target in plain else min(distance(plain, target), len(target))
    assert compare(read, [target]).similarity == pytest.approx(1 - expected / len(target))


def test_exact_means_these_texts_and_nothing_else() -> None:
    assert compare("Opening GRAND", ["grand", "opening"]).exact
    assert not compare("Grand opening!", ["grand", "opening"]).exact
    assert not compare("go", ["go", "go"]).exact
    assert compare("go go", ["go", "go"]).exact


class Repeater:
    """A reader of one's own: each picture has the text that the options name."""

    version = "repeater-1"

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, images: Sequence[np.ndarray]) -> list[list[str]]:
        return [[self.text] for _ in images]


def test_a_reader_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    own = rewards.load("ocr", reader=f"{__name__}:Repeater", reader_options={"text": "Open"})
    assert own.version == "ocr-1/repeater-1"
    assert own.score([ScoreItem(render(), '"OPEN"')])[0].value == 1
    for options, message in (
        ({"reader": "tesseract"}, "write rapidocr, or package.module:Class"),
        ({"reader": "no.such:Reader"}, "no reader 'no.such:Reader'"),
        ({"reader_options": {"sides": 3}}, "does not take reader_options"),
        ({"reader_options": {"params": {"No.such": 1}}}, "does not take params"),
    ):
        with pytest.raises(ConfigError, match=message):
            rewards.load("ocr", **options)
