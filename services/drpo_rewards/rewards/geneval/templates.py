"""Read the GenEval spec of a prompt that follows one of GenEval's six templates, for clients that send no metadata.

Only a prompt that is a template as a whole is read, because a demand that is left out would give a wrong score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from drpo_rewards.api.shapes import RELATIONS
from drpo_rewards.rewards.geneval.prompts import tidy

EXAMPLES = "`a photo of two benches`, `a photo of a red car and a blue dog`, `a photo of a cat left of a bench`"

_NUMBERS = {"two": 2, "three": 3, "four": 4}
_PLURALS = {
    "computer mouse": "computer mice",
    "knife": "knives",
    "person": "people",
    "scissors": "scissors",
    "sheep": "sheep",
    "skis": "skis",
}


def read_template(prompt: str, classes: Sequence[str], colors: Sequence[str]) -> dict[str, Any] | None:
    """Return the official metadata of a prompt, or None if it follows none of the templates.

    Args:
        prompt: case, white space and a full stop at the end do not count. A plural is GenEval's own or the usual one:
            "two benchs" or "two benches".
        classes: GenEval's names of the objects.
        colors: the colours that an object may have.
    """
    plurals, counting, objects = _patterns(tuple(classes), tuple(colors))
    text = tidy(prompt)
    if found := counting.fullmatch(text):
        number, name = _NUMBERS[found["number"]], plurals[found["plural"]]
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
def _patterns(
    classes: tuple[str, ...], colors: tuple[str, ...]
) -> tuple[dict[str, str], re.Pattern[str], re.Pattern[str]]:
    """Return the class of each plural, the pattern of the template with a number, and that of the others."""
    plurals = {plural: name for name in classes for plural in _list_plurals(name)}
    thing = rf"an? (?:({_either(colors)}) )?({_either(classes)})"
    counting = rf"a photo of (?P<number>{_either(_NUMBERS)}) (?P<plural>{_either(plurals)})"
    objects = rf"a photo of {thing}(?: (and|{_either(RELATIONS)}) {thing})?"
    return plurals, re.compile(counting), re.compile(objects)


def _list_plurals(name: str) -> set[str]:
    """Return the plural that GenEval's prompts have, such as "benchs" or "scissorses", and the usual one."""
    hissing = name.endswith(("s", "x", "z", "ch", "sh"))
    return {name + ("es" if name.endswith("s") else "s"), _PLURALS.get(name, name + ("es" if hissing else "s"))}


def _either(words: Any) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)"
