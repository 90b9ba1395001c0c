"""Read what a prompt about shapes asks for, so that clients that can only send a prompt need no GenEval spec.

Only a prompt that is understood as a whole is read, because a demand that is left out would give a wrong score.
"""

from __future__ import annotations

import re
from typing import Any

from drpo_rewards.api.shapes import PALETTE, SHAPES

EXAMPLES = "`a photo of two stars`, `a red circle and a blue bar`, `a heart above a ring`"

_COUNTS = {"a": 1, "an": 1, "one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5}
_RELATIONS = {
    "left of": "left of",
    "to the left of": "left of",
    "right of": "right of",
    "to the right of": "right of",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
}
_PICTURES = "photo|picture|drawing|image|painting|sketch|illustration|rendering|print|view"
_OPENINGS = rf"(?:(?:an?|the) (?:{_PICTURES}) of |there (?:is|are) |(?:this|these) (?:is|are) )?"


def _words(names: Any) -> str:
    return "|".join(sorted(names, key=len, reverse=True))


_OBJECT = rf"({_words(_COUNTS)})(?: ({_words(PALETTE)}))? ({_words(SHAPES)})s?"
_PROMPT = re.compile(rf"{_OPENINGS}{_OBJECT}(?: (and|{_words(_RELATIONS)}) {_OBJECT})?")


def tidy(prompt: str) -> str:
    """Return a prompt without what must not count: case, white space, and full stops or marks at its end."""
    return " ".join(prompt.lower().split()).rstrip(" .!")


def read_spec(prompt: str) -> dict[str, Any] | None:
    """Return the GenEval spec of a prompt, or None if it is not wholly of the form that `EXAMPLES` shows."""
    found = _PROMPT.fullmatch(tidy(prompt))
    if found is None:
        return None
    words = found.groups()
    first, link, second = words[:3], words[3], words[4:]
    if link is None:
        return {"include": [_clause(*first)], "exclude": _no_more(*first)}
    if link == "and":
        include = [_clause(*first), _clause(*second)]
        return {"include": include, "exclude": [*_no_more(*first), *_no_more(*second)]}
    return {"include": [_clause(*second), _clause(*first) | {"position": [_RELATIONS[link], 0]}]}


def _clause(count: str, color: str | None, shape: str) -> dict[str, Any]:
    return {"class": shape, "count": _COUNTS[count]} | ({"color": color} if color else {})


def _no_more(count: str, color: str | None, shape: str) -> list[dict[str, Any]]:
    """Exclude one more than a number that the prompt names, as GenEval does. It cannot exclude by colour."""
    number = _COUNTS[count]
    return [{"class": shape, "count": number + 1}] if number > 1 and color is None else []
