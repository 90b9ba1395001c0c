"""What a table of rows shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drpo.evaluation.table.distribution import MISSING_INCEPTION, has_inception


@dataclass(frozen=True)
class TableOptions:
    """What a table shows.

    Attributes:
        rewards: REWARD or REWARD/METRIC; none: the rewards of the settings.
        against: the name of the row that the others are compared with; None: the first one.
        scale: "paper" multiplies scores as the paper's tables do.
        diversity: also show the diversity of the pictures of a prompt.
        fid: what pictures the distributions are compared with: the name of a row, a folder, or hub:ORG/NAME[:SPLIT].
        fid_features: of Inception, or of the feature map of the settings.
        grid: prompts in the grid of each set; 0: no grid.
    """

    rewards: Sequence[str] = ()
    against: str | None = None
    scale: Literal["raw", "paper"] = "raw"
    diversity: bool = True
    fid: str | None = None
    fid_features: Literal["inception", "map"] = "inception"
    grid: int = 8

    @property
    def measures_features(self) -> bool:
        """Whether the feature map of the settings is needed."""
        return self.diversity or (self.fid is not None and self.fid_features == "map")

    def find_problems(self, names: Sequence[str]) -> list[str]:
        """What can be known to be wrong before anything is generated.

        Args:
            names: of the rows.
        """
        problems = []
        if self.against is not None and self.against not in names:
            choice = f"; choose from {', '.join(names)}" if names else ""
            problems.append(f"--against: there is no row {self.against!r}{choice}")
        elsewhere = self.fid is not None and self.fid not in names and not self.fid.startswith("hub:")
        if elsewhere and not Path(str(self.fid)).expanduser().is_dir():
            problems.append(f"--fid: {self.fid} is neither a row, nor a folder, nor hub:ORG/NAME")
        if self.fid is not None and self.fid_features == "inception" and not has_inception():
            problems.append(MISSING_INCEPTION)
        return problems
