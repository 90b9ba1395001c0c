"""GenEval's templates: the official 553 prompts, and every prompt that the templates can form.

A prompt is GenEval's own record: {"tag", "include", "exclude" (only of counting), "prompt"}, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np

Specification = dict[str, Any]

CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes of COCO, as GenEval names them. The order determines the official prompts."""

COLORED_CLASSES = CLASSES[1:]  # a person has no colour
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {2: "two", 3: "three", 4: "four"}
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

_SEED = 43
_DRAWS = 100  # for each task; equal ones are dropped
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def form_single_object(a: str, words: str = "a photo of {}") -> Specification:
    return _specify("single_object", [_thing(a)], words.format(add_article(a)))


def form_two_object(a: str, b: str) -> Specification:
    return _specify("two_object", [_thing(a), _thing(b)], f"a photo of {add_article(a)} and {add_article(b)}")


def form_counting(a: str, count: int) -> Specification:
    prompt = f"a photo of {NUMBERS[count]} {a}{'es' if a.endswith('s') else 's'}"
    return {
        "tag": "counting",
        "include": [{"class": a, "count": count}],
        "exclude": [{"class": a, "count": count + 1}],
        "prompt": prompt,
    }


def form_colors(a: str, color: str) -> Specification:
    return _specify("colors", [_thing(a, color)], f"a photo of {add_article(color)} {a}")


def form_position(a: str, relation: str, b: str) -> Specification:
    include = [_thing(b), {"class": a, "count": 1, "position": [relation, 0]}]
    return _specify("position", include, f"a photo of {add_article(a)} {relation} {add_article(b)}")


def form_color_attr(a: str, color_a: str, b: str, color_b: str) -> Specification:
    prompt = f"a photo of {add_article(color_a)} {a} and {add_article(color_b)} {b}"
    return _specify("color_attr", [_thing(a, color_a), _thing(b, color_b)], prompt)


def make_official() -> list[Specification]:
    """The official prompts, in their order: GenEval draws them with a fixed seed, and so does this."""
    generator = np.random.default_rng(_SEED)

    def pick(names: tuple[str, ...]) -> str:
        return names[generator.integers(len(names))]

    def pick_two(names: tuple[str, ...]) -> list[str]:
        return [names[index] for index in generator.choice(len(names), 2, replace=False)]

    def draw_color_attr() -> Specification:
        a, b = pick_two(COLORED_CLASSES)
        color_a, color_b = pick_two(COLORS)
        return form_color_attr(a, color_a, b, color_b)

    def draw_position() -> Specification:
        a, b = pick_two(CLASSES)
        return form_position(a, pick(RELATIONS), b)

    draws: list[Callable[[], Specification]] = [
        lambda: form_two_object(*pick_two(CLASSES)),
        lambda: form_counting(pick(CLASSES), int(generator.integers(min(NUMBERS), max(NUMBERS), endpoint=True))),
        lambda: form_colors(pick(COLORED_CLASSES), pick(COLORS)),
        draw_position,
        draw_color_attr,
    ]
    official = [
        form_single_object(CLASSES[index]) for index in generator.choice(len(CLASSES), len(CLASSES), replace=False)
    ]
    for draw in draws:
        drawn = (draw() for _ in range(_DRAWS))
        official += {specification["prompt"]: specification for specification in drawn}.values()
    return official


def form_all(task: str) -> Iterator[Specification]:
    """Every prompt that the template of a task can form."""
    if task == "single_object":
        yield from map(form_single_object, CLASSES)
    elif task == "two_object":
        yield from (form_two_object(a, b) for a, b in permutations(CLASSES, 2))
    elif task == "counting":
        yield from (form_counting(a, count) for a, count in product(CLASSES, NUMBERS))
    elif task == "colors":
        yield from (form_colors(a, color) for a, color in product(COLORED_CLASSES, COLORS))
    elif task == "position":
        yield from (form_position(a, relation, b) for (a, b), relation in product(permutations(CLASSES, 2), RELATIONS))
    else:
        pairs = product(permutations(COLORED_CLASSES, 2), permutations(COLORS, 2))
        yield from (form_color_attr(a, color_a, b, color_b) for (a, b), (color_a, color_b) in pairs)


def mirror(specification: Specification) -> Specification | None:
    """The prompt of the same picture in other words; None if there is none.

    "a dog left of a cat" and "a cat right of a dog" are mirror twins, as are "a dog and a cat" and "a cat and a dog".
    """
    things = specification["include"]
    names = [thing["class"] for thing in things]
    if specification["tag"] == "two_object":
        return form_two_object(names[1], names[0])
    if specification["tag"] == "color_attr":
        return form_color_attr(names[1], things[1]["color"], names[0], things[0]["color"])
    if specification["tag"] == "position":
        return form_position(names[0], _OPPOSITE[things[1]["position"][0]], names[1])
    return None


def add_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@cache
def _thing(name: str, color: str | None = None) -> dict[str, Any]:
    """One object of a picture. Specifications share it, as there are half a million of them: do not change it."""
    return {"class": name, "count": 1} | ({} if color is None else {"color": color})


def _specify(tag: str, include: list[dict[str, Any]], prompt: str) -> Specification:
    return {"tag": tag, "include": include, "prompt": prompt}
