"""GenEval's metadata read from a prompt: equal to the official metadata, and to that of every possible prompt."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from support import ROOT

from drpo.data.prompts.sources import geneval_templates as official
from drpo_rewards.rewards.geneval.mask2former import CLASSES, COLORS
from drpo_rewards.rewards.geneval.templates import EXAMPLES, _list_plurals, read_template

SHARED = ROOT.parent / "shared" / "data" / "geneval" / "evaluation_metadata.jsonl"


def read(prompt: str) -> object:
    return read_template(prompt, CLASSES, COLORS)


def test_the_official_prompts_are_read_as_their_metadata() -> None:
    """The project's own generator makes them, which equals the official file byte for byte."""
    made = official.make_official()
    assert len(made) == 553
    for entry in made:
        assert read(entry["prompt"]) == entry


@pytest.mark.skipif(not SHARED.exists(), reason="the official file is not here")
def test_the_official_file_says_the_same() -> None:
    entries = [json.loads(line) for line in SHARED.read_text("utf-8").splitlines()]
    assert len(entries) == 553
    assert [read(entry["prompt"]) for entry in entries] == entries


@pytest.mark.parametrize("task", official.TASKS)
def test_every_prompt_that_the_templates_form(task: str) -> None:
    """Every one of the small tasks, and every 97th of the large ones."""
    formed = itertools.islice(official.form_all(task), 0, None, 97 if task in ("position", "color_attr") else 1)
    for entry in itertools.islice(formed, 7000):
        assert read(entry["prompt"]) == entry, entry["prompt"]


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("A photo of  a Bench.", "a photo of a bench"),
        ("a photo of an Orange Orange", "a photo of an orange orange"),
        ("a photo of a elephant", "a photo of an elephant"),
        ("a photo of an elephant !", "a photo of an elephant"),
        ("a photo of two Benches.", "a photo of two benchs"),
        ("a photo of three people", "a photo of three persons"),
        ("a photo of four knives", "a photo of four knifes"),
        ("a photo of two sheep", "a photo of two sheeps"),
        ("a photo of two scissors", "a photo of two scissorses"),
        ("a photo of two toothbrushes", "a photo of two toothbrushs"),
        ("a photo of two wine glasses", "a photo of two wine glasses"),
    ],
)
def test_case_space_articles_and_usual_plurals_do_not_count(prompt: str, same: str) -> None:
    assert read(prompt) == read(same) | {"prompt": prompt}  # type: ignore[operator]


@pytest.mark.parametrize("prompt", re.findall("`(.*?)`", EXAMPLES))
def test_the_examples_of_its_error_are_read(prompt: str) -> None:
    assert read(prompt) is not None


def test_no_plural_is_that_of_two_classes_or_another_class() -> None:
    plurals = [plural for name in CLASSES for plural in _list_plurals(name)]
    assert len(set(plurals)) == len(plurals)
    assert set(plurals) & set(CLASSES) == {"sheep", "scissors", "skis"}, "whose plural is the word itself"


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a bench",
        "a photo of a dragon",
        "a photo of five benches",
        "a photo of a red dog and a cat",
        "a photo of a red dog left of a blue cat",
        "a photo of a cat next to a dog",
        "a photo of a cat and a dog and a bench",
        "a photo of a bench in the rain",
        "a photo of a turquoise bench",
    ],
)
def test_other_prompts_are_not_read(prompt: str) -> None:
    assert read(prompt) is None
