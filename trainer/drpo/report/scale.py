"""How the report writes scores, and where they lie on the axis of the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """The scale of the shown metric.

    Attributes:
        percentage: whether scores are percentages.
        low, high: the ends of the axis.
        decimals: the decimals of a written score.
        higher_is_better: whether a larger score is a better one.
        binary: whether each image has 0 or 100 %, so that it is right or wrong.
    """

    percentage: bool
    low: float
    high: float
    decimals: int = 1
    higher_is_better: bool = True
    binary: bool = False

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Scale:
        """The scale that fits the scores in a summary."""
        better = summary.get("higher_is_better", True)
        if summary.get("percentage"):
            return cls(True, 0.0, 100.0, higher_is_better=better, binary=summary.get("binary", True) and better)
        rows = summary.get("tasks", {}).values()
        values = [row[side] for row in rows for side in ("base", "tuned")] or [0.0, 1.0]
        margin = 0.15 * (max(values) - min(values)) or 1.0
        low, high = min(values) - margin, max(values) + margin
        # Tasks may lie far apart and change little: the largest change has two digits.
        change = max((abs(row["tuned"] - row["base"]) for row in rows), default=0.0)
        decimals = max(0, 1 - math.floor(math.log10(max(change, (high - low) / 100))))
        return cls(False, low, high, decimals, better)

    def text(self, value: float) -> str:
        """A score with a percent sign, or as a plain number."""
        number = f"{value:z.{self.decimals}f}".replace("-", "\N{MINUS SIGN}")
        return f"{number}\N{NO-BREAK SPACE}%" if self.percentage else number

    def difference(self, value: float) -> str:
        """A difference with its sign. Differences of percentages are points, without a percent sign."""
        return f"{value:+z.{self.decimals}f}".replace("-", "\N{MINUS SIGN}")

    def interval(self, ends: Sequence[float] | None) -> str:
        """Both ends of an interval of differences, with their signs; a dash if there is none."""
        return " to ".join(map(self.difference, ends)) if ends is not None else "\N{EN DASH}"

    def position(self, value: float) -> float:
        """The position on the axis in percent, from its left end."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def trend(self, interval: Sequence[float] | None) -> str:
        """ "better", "worse", or "even" if the interval of a difference contains 0 or there is none."""
        if interval is None:
            return "even"
        low, high = interval if self.higher_is_better else (-interval[1], -interval[0])
        return "better" if low > 0 else "worse" if high < 0 else "even"
