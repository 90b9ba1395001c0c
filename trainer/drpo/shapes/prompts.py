"""The prompts of `shapes`: GenEval's six tasks with its shapes and colours, in three splits that share no prompt.

Each task splits its prompts with its own seed, so a change to one task does not change the splits of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np

from drpo_rewards.api.shapes import PALETTE, RELATIONS, SHAPES

Split = Literal["train", "validation", "test"]

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

HELD_OUT = 60
"""Prompts per task in the test split, and also in the validation split."""

_MAX_TRAIN_PROMPTS = 2000  # per task; some tasks could form many more

_TEMPLATES = (
    "a photo of {}", "a picture of {}", "a drawing of {}", "an image of {}", "a painting of {}", "a sketch of {}",
    "an illustration of {}", "a rendering of {}", "a print of {}", "a view of {}", "{}", "there is {}", "this is {}",
)  # fmt: skip
_COUNT_TEMPLATES = (
    *(template for template in _TEMPLATES if not template.startswith("th")),
    "there are {}",
    "these are {}",
)
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
_RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


@dataclass(frozen=True)
class ShapesPrompt:
    """A prompt, its GenEval specification, and its task.

    Attributes:
        prompt: for example "a photo of two stars".
        metadata: {"tag": "counting", "prompt": "a photo of two stars", "include": [{"class": "star", "count": 2}],
            "exclude": [{"class": "star", "count": 3}]}.
        task: one of `TASKS`, here "counting".
    """

    prompt: str
    metadata: dict
    task: str


def prompts(split: Split, task: str | None = None) -> list[ShapesPrompt]:
    """The prompts of a split, of one task or of all six in the order of `TASKS`.

    Raises:
        ValueError: there is no such split or task.
    """
    if split not in get_args(Split):
        raise ValueError(f"there is no split {split!r}; choose from {', '.join(get_args(Split))}")
    if task is not None and task not in TASKS:
        raise ValueError(f"there is no task {task!r}; choose from {', '.join(TASKS)}")
    return [record for name in ([task] if task else TASKS) for record in _splits(name)[split]]


@cache
def _splits(task: str) -> dict[Split, list[ShapesPrompt]]:
    records = sorted(_all_prompts(task), key=lambda record: record.prompt)
    order = np.random.default_rng([TASKS.index(task), 2026]).permutation(len(records))
    shuffled = [records[i] for i in order]
    return {
        "test": shuffled[:HELD_OUT],
        "validation": shuffled[HELD_OUT : 2 * HELD_OUT],
        "train": shuffled[2 * HELD_OUT :][:_MAX_TRAIN_PROMPTS],
    }


def _all_prompts(task: str) -> list[ShapesPrompt]:
    records: dict[str, ShapesPrompt] = {}

    def add(template: str, words: str, include: list[dict], exclude: Sequence[dict] = ()) -> None:
        prompt = template.format(words)
        metadata = {"tag": task, "prompt": prompt, "include": include, "exclude": list(exclude)}
        records.setdefault(prompt, ShapesPrompt(prompt, metadata, task))

    _ADD_PROMPTS[task](add)
    return list(records.values())


AddPrompt = Callable[..., None]


def _with_article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def _single_object(add: AddPrompt) -> None:
    for template in _TEMPLATES:
        for shape in SHAPES:
            for words in (_with_article(shape), f"one {shape}", f"a single {shape}"):
                add(template, words, [{"class": shape, "count": 1}])


def _two_object(add: AddPrompt) -> None:
    for template in _TEMPLATES:
        for a, b in _ordered_pairs(SHAPES):
            add(
                template,
                f"{_with_article(a)} and {_with_article(b)}",
                [{"class": a, "count": 1}, {"class": b, "count": 1}],
            )


def _counting(add: AddPrompt) -> None:
    for template in _COUNT_TEMPLATES:
        for shape in SHAPES:
            for count, number in _NUMBERS.items():
                # as in GenEval: there are n, and not n + 1
                exclude = [{"class": shape, "count": count + 1}]
                add(template, f"{number} {shape}s", [{"class": shape, "count": count}], exclude)


def _colors(add: AddPrompt) -> None:
    for template in _TEMPLATES:
        for shape in SHAPES:
            for color in PALETTE:
                for words in (_with_article(f"{color} {shape}"), f"one {color} {shape}"):
                    add(template, words, [{"class": shape, "count": 1, "color": color}])


def _position(add: AddPrompt) -> None:
    for template in _TEMPLATES:
        for a, b in _ordered_pairs(SHAPES):
            for relation in RELATIONS:
                for words in _RELATION_WORDS[relation]:
                    include = [{"class": b, "count": 1}, {"class": a, "count": 1, "position": [relation, 0]}]
                    add(template, f"{_with_article(a)} {words} {_with_article(b)}", include)


def _color_attr(add: AddPrompt) -> None:
    for template in _TEMPLATES:
        for a, b in _ordered_pairs(SHAPES):
            for color_a, color_b in _ordered_pairs(tuple(PALETTE)):
                include = [{"class": a, "count": 1, "color": color_a}, {"class": b, "count": 1, "color": color_b}]
                add(template, f"{_with_article(f'{color_a} {a}')} and {_with_article(f'{color_b} {b}')}", include)


def _ordered_pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(a, b) for a in names for b in names if a != b]


_ADD_PROMPTS: dict[str, Callable[[AddPrompt], None]] = {
    "single_object": _single_object,
    "two_object": _two_object,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
}
