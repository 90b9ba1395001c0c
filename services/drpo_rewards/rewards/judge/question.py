"""What a judge is asked, what it may answer, and how its answer is read.

The question is the paper's (Appendix B.4). The two images go before it, each under its name; the paper does not say
where it has them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from drpo_rewards.rewards.base import PairItem

Winner = Literal["first", "second", "tie"]
WINNERS: dict[str, Winner] = {"A": "first", "B": "second", "tie": "tie"}  # as the judge is to write them

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

_QUESTION = (Path(__file__).parent / "prompt.txt").read_text().strip()


@dataclass(frozen=True)
class Opinion:
    """One answer of a judge about a pair as it was shown. What could not be read is a tie that says so."""

    winner: Winner
    confidence: float | None = None  # 0 to 1
    reason: str = ""
    parsed: bool = True


class Backend(Protocol):
    """Where a judge's answers come from. Raises a RewardsError where it cannot be asked."""

    version: str
    checkpoint: str | None
    license: str | None

    def ask(self, pairs: list[PairItem]) -> list[Opinion]:
        """One opinion per pair, in order. `first` is shown as Image A."""
        ...


def question(prompt: str) -> str:
    """The text after the two images. A prompt cannot end the quotation that it stands in."""
    return _QUESTION.replace("{prompt}", prompt.replace('"""', "'''"))


def read(answer: str) -> Opinion | None:
    """A verdict in a model's words: JSON, or the first JSON object in them that is one. None where there is none."""
    for text in (answer, *_objects(answer)):
        try:
            data = json.loads(text, strict=False)  # models write line breaks inside of strings
        except ValueError:
            continue
        if isinstance(data, dict) and (winner := _winner(data.get("winner"))) is not None:
            sure = data.get("confidence")
            if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 <= sure <= 1:
                sure = None
            return Opinion(winner, sure, str(data.get("reason") or "")[:200])
    return None


def _winner(said: Any) -> Winner | None:
    names = {name.lower(): winner for name, winner in WINNERS.items()}
    return names.get(said.strip().lower()) if isinstance(said, str) else None


def _objects(text: str) -> Iterator[str]:
    """Every balanced `{...}` in a text, outermost ones only, in order; braces inside of strings do not count."""
    start = text.find("{")
    while start >= 0:
        end = _end_of_object(text, start)
        if end is not None:
            yield text[start:end]
        start = text.find("{", start + 1 if end is None else end)


def _end_of_object(text: str, start: int) -> int | None:
    depth, quoted, escaped = 0, False, False
    for place in range(start, len(text)):
        letter = text[place]
        if quoted:
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        elif letter in "{}":
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return place + 1
    return None
