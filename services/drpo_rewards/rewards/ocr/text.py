"""Which text a prompt asks for, and how far a text that was read is from it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo_rewards.errors import InvalidRequestError

MISSING = (
    'ocr needs the text that the picture shall show: in quotes in the prompt, as in `a sign that says "OPEN"`, '
    'or as metadata {"text": "OPEN"}'
)

_QUOTES = ('""', "“”", "„“", "„”", "«»", "‹›", "「」", "『』", "＂＂")
_DOUBLE = re.compile("|".join(f"{left}([^{left}{right}]*){right}" for left, right in map(tuple, _QUOTES)))
# Single quotes are also apostrophes: one that opens has no letter before it, and one that closes has none after it.
_SINGLE = re.compile(r"(?<!\w)['‘]([^'‘’]*(?:(?<=\w)['’](?=\w)[^'‘’]*)*)['’](?!\w)")


@dataclass(frozen=True)
class Agreement:
    """How well a text that was read agrees with the texts that were asked for.

    Attributes:
        similarity: 1 minus the normalised edit distance, 0 to 1.
        exact: whether it is these texts, and nothing else.
    """

    similarity: float
    exact: bool


def find_targets(prompt: str, metadata: Mapping[str, Any] | None) -> list[str]:
    """Return the texts that the picture shall show: `metadata.text`, otherwise what the prompt has in quotes.

    Raises:
        InvalidRequestError: there is none, or `metadata.text` is neither text nor a list of texts.
    """
    given = (metadata or {}).get("text")
    if given is None:
        quoted = _DOUBLE.findall(prompt)
        found = [next(filter(None, groups), "") for groups in quoted] or _SINGLE.findall(prompt)
        field = None
    else:
        found, field = [given] if isinstance(given, str) else given, "metadata.text"
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise InvalidRequestError("metadata.text must be text, or a list of texts", field=field)
    targets = [text for text in found if normalize(text)]
    if not targets:
        raise InvalidRequestError(MISSING, field=field or "prompt")
    return targets


def normalize(text: str) -> str:
    """Return a text without what must not count: case, white space, and how its characters are encoded."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def compare(read: str, targets: Sequence[str]) -> Agreement:
    """Compare what was read with what was asked for, as flow_grpo does.

    A target that occurs in the text has the distance 0, whatever else was read. Otherwise it is the edit distance, at
    most the target's length. The distance is divided by this length. Several targets count by their lengths.

    Example:
        compare("OPEN 24h", ["open"])  # Agreement(similarity=1.0, exact=False)
    """
    from rapidfuzz.distance import Levenshtein

    text, wanted = normalize(read), [normalize(target) for target in targets]
    distances = [0 if target in text else min(Levenshtein.distance(text, target), len(target)) for target in wanted]
    rest = text
    for target in sorted(wanted, key=len, reverse=True):
        if target not in rest:
            return Agreement(1 - sum(distances) / sum(map(len, wanted)), False)
        rest = rest.replace(target, "", 1)
    return Agreement(1 - sum(distances) / sum(map(len, wanted)), not rest)
