"""The question to a judge, its possible answers, and how they are parsed.

The question is the paper's (Appendix B.4). The two images come before it, each under its label; the paper does not say
where it puts them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from drpo_rewards.rewards.base import PairItem

Winner = Literal["first", "second", "tie"]
WINNERS: dict[str, Winner] = {"A": "first", "B": "second", "tie": "tie"}  # the keys are what a judge writes

LABELS = ("Image A:\n", "\nImage B:\n", "\n")  # before the first image, between the two, and before the question

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "winner": {"type": "string", "enum": list(WINNERS)},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "reason": {"type": "string"},
    },
    "required": ["winner", "confidence", "reason"],
    "additionalProperties": False,
}

SEARCHED = 4_000  # characters at an answer's end; of an endless row of brackets, the search takes time with its square

_QUESTION = (Path(__file__).parent / "prompt.txt").read_text("utf-8").strip()


@dataclass(frozen=True)
class Opinion:
    """One answer of a judge about a pair in one order.

    Attributes:
        winner: "first" for Image A, "second" for Image B, or "tie".
        confidence: 0 to 1; None if the judge gave none.
        reason: the judge's own words, at most 200 characters.
        parsed: False if the answer could not be read; then `winner` is "tie".
    """

    winner: Winner
    confidence: float | None = None
    reason: str = ""
    parsed: bool = True


class Backend(Protocol):
    """The source of a judge's answers: a model in this process or an endpoint."""

    version: str
    checkpoint: str | None
    license: str | None

    def ask(self, pairs: list[PairItem]) -> list[Opinion]:
        """Return one opinion per pair, in order. `first` is Image A. Raises a RewardsError without an answer."""
        ...


def write_question(prompt: str) -> str:
    """Return the text after the two images. The prompt is in quotes, and cannot end them."""
    return _QUESTION.replace("{prompt}", prompt.replace('"""', "'''"))


def parse_answer(answer: str) -> Opinion | None:
    """Find the verdict in a model's answer: the whole answer as JSON, or the first JSON object in it with a winner.

    Returns:
        The verdict; None if there is none.
    """
    for text in (answer, *_find_objects(answer[-SEARCHED:])):
        try:
            data = json.loads(text, strict=False)  # models write line breaks inside strings
        except (ValueError, RecursionError):  # the latter for a text of open brackets only
            continue
        if isinstance(data, dict) and (winner := _parse_winner(data.get("winner"))) is not None:
            confidence = data.get("confidence")
            if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
                confidence = None
            return Opinion(winner, confidence, str(data.get("reason") or "")[:200])
    return None


def _parse_winner(value: Any) -> Winner | None:
    names = {name.lower(): winner for name, winner in WINNERS.items()}
    return names.get(value.strip().lower()) if isinstance(value, str) else None


def _find_objects(text: str) -> Iterator[str]:
    """Yield every outermost balanced `{...}` in a text, in order. Braces inside strings do not count."""
    start = text.find("{")
    while start >= 0:
        end = _end_of_object(text, start)
        if end is not None:
            yield text[start:end]
        start = text.find("{", start + 1 if end is None else end)


def _end_of_object(text: str, start: int) -> int | None:
    depth, quoted, escaped = 0, False, False
    for index in range(start, len(text)):
        letter = text[index]
        if quoted:
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        elif letter in "{}":
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return index + 1
    return None
