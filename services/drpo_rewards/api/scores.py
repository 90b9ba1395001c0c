"""What a reward takes and returns: images to score and their scores, pairs of images and their comparisons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class ScoreItem:
    """One image to score.

    Attributes:
        image: (H, W, 3) uint8, RGB, 0 to 255. A reward gets a copy, which it may change.
        prompt: the text that the image was made from.
        metadata: what the request has beyond the prompt, e.g. a GenEval spec; plain JSON types.

    Example:
        ScoreItem(np.zeros((512, 512, 3), np.uint8), "a red circle", {"include": [{"class": "circle", "color": "red"}]})
    """

    image: np.ndarray
    prompt: str
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Score:
    """One image's score.

    Attributes:
        value: the raw score, a finite number in the reward's own unit and range. Only the order of the values within a
            group matters for ranking.
        details: what else the reward reports about the image; plain JSON types, up to 100 kB and 16 levels deep.

    Example:
        Score(0.5, {"strict": 0, "graded": 0.5, "reasons": ["expected 1 red circle, found blue"]})
    """

    value: float
    details: dict[str, Any] | None = None


@dataclass(frozen=True)
class PairItem:
    """Two images of one prompt to compare.

    Attributes:
        first: (H, W, 3) uint8, RGB, 0 to 255. A reward gets a copy, which it may change.
        second: the same. It may differ from `first` in size.
        prompt: the text that both images were made from.
        metadata: what the request has beyond the prompt; plain JSON types.

    Example:
        PairItem(np.zeros((512, 512, 3), np.uint8), np.zeros((256, 256, 3), np.uint8), "a red circle")
    """

    first: np.ndarray
    second: np.ndarray
    prompt: str
    metadata: dict[str, Any] | None = None

    def swap(self) -> PairItem:
        """Return the pair in the other order."""
        return PairItem(self.second, self.first, self.prompt, self.metadata)


@dataclass(frozen=True)
class Comparison:
    """Which image of a pair is the better one.

    A reward that cannot decide answers "tie"; a reward that fails raises an exception.

    Attributes:
        winner: "first", "second" or "tie".
        confidence: 0 to 1; None if the reward has none.
        details: what else the reward reports about the pair; plain JSON types, up to 100 kB and 16 levels deep.
        flipped: whether the answer changed with the order of the two images; None if only one order was asked.
        unparsed: how many of the answers could not be read as a verdict.
        asked: how many answers the reward asked for, at least 1.

    Example:
        Comparison("first", confidence=0.9, details={"reason": "only one has a circle"}, flipped=False, asked=2)
    """

    winner: Literal["first", "second", "tie"]
    confidence: float | None = None
    details: dict[str, Any] | None = None
    flipped: bool | None = None
    unparsed: int = 0
    asked: int = 1

    def swap(self) -> Comparison:
        """Return this judgement in terms of the swapped pair."""
        swapped: dict[str, Literal["first", "second", "tie"]] = {"first": "second", "second": "first", "tie": "tie"}
        return replace(self, winner=swapped[self.winner])
