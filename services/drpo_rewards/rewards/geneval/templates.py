"""Read the GenEval spec of a prompt that follows one of GenEval's six templates, for clients that send no metadata.

Only a prompt that is a template as a whole is read, because a demand that is left out would give a wrong score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from drpo_rewards.api.shapes import RELATIONS

EXAMPLES = "`a photo of two benches`, `a photo of a red car and a blue dog`, `a photo of a cat left of a bench`"

_NUMBERS = {"two": 2, "three": 3, "four": 4}


def read_template(prompt: str, classes: Sequence[str], colors: Sequence[str]) -> dict[str, Any] | None:
    """Return the official metadata of a prompt, or None if it follows none of the templates.

    Args:
        prompt: case, white space and a full stop at the end do not count.
        classes: GenEval's names of the objects.
        colors: the colours that an object may have.
    """
    counting, objects = _patterns(tuple(classes), tuple(colors))
    text = " ".join(prompt.split()).removesuffix(".").lower()
    if found := counting.fullmatch(text):
        number, name = _NUMBERS[found["number"]], found["plain"] or found["sibilant"]
        include = [{"class": name, "count": number}]
        exclude = [{"class": name, "count": number + 1}]
        return {"tag": "counting", "include": include, "exclude": exclude, "prompt": prompt}
    found = objects.fullmatch(text)
    if found is None:
        return None
    color_a, a, link, color_b, b = found.groups()
    tag = _name_task(link, bool(color_a), bool(color_b))
    if tag is None:  # one with a colour and one without, or colours and a position
        return None
    include = [_clause(a, color_a)]
    if tag == "position":
        include = [_clause(b, None), _clause(a, None) | {"position": [link, 0]}]
    elif link:
        include.append(_clause(b, color_b))
    return {"tag": tag, "include": include, "prompt": prompt}


def _name_task(link: str | None, color_a: bool, color_b: bool) -> str | None:
    """Return the task of the template that has this link and these colours; None if none has."""
    if link is None:
        return "colors" if color_a else "single_object"
    if link == "and" and color_a == color_b:
        return "color_attr" if color_a else "two_object"
    return "position" if link != "and" and not color_a and not color_b else None


def _clause(name: str, color: str | None) -> dict[str, Any]:
    return {"class": name, "count": 1} | ({"color": color} if color else {})


@lru_cache(maxsize=8)
def _patterns(classes: tuple[str, ...], colors: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of the template with a number, and of the others."""
    names = _either(classes)
    sibilant = _either([name for name in classes if name.endswith("s")])  # GenEval writes "scissorses"
    plain = _either([name for name in classes if not name.endswith("s")])
    thing = rf"an? (?:({_either(colors)}) )?({names})"
    counting = rf"a photo of (?P<number>{_either(_NUMBERS)}) (?:(?P<sibilant>{sibilant})es|(?P<plain>{plain})s)"
    objects = rf"a photo of {thing}(?: (and|{_either(RELATIONS)}) {thing})?"
    return re.compile(counting), re.compile(objects)


def _either(words: Any) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)"
