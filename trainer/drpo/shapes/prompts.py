"""The prompts of `shapes`: the six GenEval tasks over its shapes and colours, in three splits that share no prompt.

Each task's prompts are dealt to test, validation and train from a seed of the task's own, so that a set never changes
when another one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np

from drpo.shapes.world import COLORS, RELATIONS, SHAPES

Split = Literal["train", "validation", "test"]

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

HELD_OUT = 60
"""Prompts of each task in the test split, and as many in the validation split."""

_MOST_PER_TASK = 2000  # of train prompts, where a task could form many more

_LEADS = (
    "a photo of {}", "a picture of {}", "a drawing of {}", "an image of {}", "a painting of {}", "a sketch of {}",
    "an illustration of {}", "a rendering of {}", "a print of {}", "a view of {}", "{}", "there is {}", "this is {}",
)  # fmt: skip
_COUNT_LEADS = (*(lead for lead in _LEADS if not lead.startswith("th")), "there are {}", "these are {}")
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
_RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


@dataclass(frozen=True)
class ShapesPrompt:
    """A prompt, its GenEval specification, and its task."""

    prompt: str
    metadata: dict
    task: str


def prompts(split: Split, task: str | None = None) -> list[ShapesPrompt]:
    """The prompts of a split, of one task or of all six in the order of `TASKS`.

    Raises:
        ValueError: for a split or a task that does not exist.
    """
    if split not in get_args(Split):
        raise ValueError(f"there is no split {split!r}: choose one of {', '.join(get_args(Split))}")
    if task is not None and task not in TASKS:
        raise ValueError(f"there is no task {task!r}: choose one of {', '.join(TASKS)}")
    return [record for name in ([task] if task else TASKS) for record in _splits(name)[split]]


@cache
def _splits(task: str) -> dict[Split, list[ShapesPrompt]]:
    records = sorted(_all_prompts(task), key=lambda record: record.prompt)
    order = np.random.default_rng([TASKS.index(task), 2026]).permutation(len(records))
    dealt = [records[i] for i in order]
    return {
        "test": dealt[:HELD_OUT],
        "validation": dealt[HELD_OUT : 2 * HELD_OUT],
        "train": dealt[2 * HELD_OUT :][:_MOST_PER_TASK],
    }


def _all_prompts(task: str) -> list[ShapesPrompt]:
    records: dict[str, ShapesPrompt] = {}

    def add(lead: str, words: str, include: list[dict], exclude: Sequence[dict] = ()) -> None:
        prompt = lead.format(words)
        metadata = {"tag": task, "prompt": prompt, "include": include, "exclude": list(exclude)}
        records.setdefault(prompt, ShapesPrompt(prompt, metadata, task))

    _FORMS[task](add)
    return list(records.values())


Add = Callable[..., None]


def _article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def _single_object(add: Add) -> None:
    for lead in _LEADS:
        for shape in SHAPES:
            for article in (_article(shape), f"one {shape}", f"a single {shape}"):
                add(lead, article, [{"class": shape, "count": 1}])


def _two_object(add: Add) -> None:
    for lead in _LEADS:
        for a, b in _ordered_pairs(SHAPES):
            add(lead, f"{_article(a)} and {_article(b)}", [{"class": a, "count": 1}, {"class": b, "count": 1}])


def _counting(add: Add) -> None:
    for lead in _COUNT_LEADS:
        for shape in SHAPES:
            for count, number in _NUMBERS.items():
                # GenEval's own form: n are there, and n + 1 are not
                exclude = [{"class": shape, "count": count + 1}]
                add(lead, f"{number} {shape}s", [{"class": shape, "count": count}], exclude)


def _colors(add: Add) -> None:
    for lead in _LEADS:
        for shape in SHAPES:
            for color in COLORS:
                for words in (_article(f"{color} {shape}"), f"one {color} {shape}"):
                    add(lead, words, [{"class": shape, "count": 1, "color": color}])


def _position(add: Add) -> None:
    for lead in _LEADS:
        for a, b in _ordered_pairs(SHAPES):
            for relation in RELATIONS:
                for words in _RELATION_WORDS[relation]:
                    include = [{"class": b, "count": 1}, {"class": a, "count": 1, "position": [relation, 0]}]
                    add(lead, f"{_article(a)} {words} {_article(b)}", include)


def _color_attr(add: Add) -> None:
    for lead in _LEADS:
        for a, b in _ordered_pairs(SHAPES):
            for color_a, color_b in _ordered_pairs(tuple(COLORS)):
                include = [{"class": a, "count": 1, "color": color_a}, {"class": b, "count": 1, "color": color_b}]
                add(lead, f"{_article(f'{color_a} {a}')} and {_article(f'{color_b} {b}')}", include)


def _ordered_pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(a, b) for a in names for b in names if a != b]


_FORMS: dict[str, Callable[[Add], None]] = {
    "single_object": _single_object,
    "two_object": _two_object,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
}
