"""Write the results of a table: JSON, CSV, Markdown and LaTeX.

results.json has everything; the others show for each row and column the mean, its standard error, and a mark for a
difference from the compared row whose 95 % interval does not contain 0.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drpo.evaluation.table.statistics import Cell
from drpo.training.files import storing, write_text

MARK = "*"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        prompts: the name of the set of prompts.
        title: what it shows.
        higher_is_better: whether a larger number is a better one.
        digits: decimals.
        factor: what the numbers were multiplied by, such as 100.
        cells: by the row's name; a row without the number is left out.
    """

    prompts: str
    title: str
    higher_is_better: bool = True
    digits: int = 3
    factor: float = 1.0
    cells: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def best(self) -> str | None:
        """The name of the row with the best number."""
        sign = 1 if self.higher_is_better else -1
        return max(self.cells, key=lambda row: sign * self.cells[row].mean, default=None)


@dataclass(frozen=True)
class Table:
    """The whole table.

    Attributes:
        rows: the names of the rows, in order.
        against: the row that the others are compared with.
        columns: in order.
        notes: lines under it.
        settings: everything that was asked, for results.json.
    """

    rows: Sequence[str]
    against: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def write(self, out: Path) -> None:
        """Writes results.json, table.csv, table.md and table.tex.

        Raises:
            StorageError: one could not be written.
        """
        with storing(out):
            out.mkdir(parents=True, exist_ok=True)
        write_text(out / "results.json", json.dumps(self.to_json(), indent=1) + "\n")
        write_text(out / "table.csv", self.to_csv())
        write_text(out / "table.md", self.to_markdown())
        write_text(out / "table.tex", self.to_latex())

    def to_json(self) -> dict[str, Any]:
        """All numbers, unrounded."""
        columns = [
            {
                "prompts": column.prompts,
                "title": column.title,
                "higher_is_better": column.higher_is_better,
                "factor": column.factor,
                "digits": column.digits,
                "cells": {row: cell.to_json() for row, cell in column.cells.items()},
            }
            for column in self.columns
        ]
        return {**self.settings, "rows": list(self.rows), "against": self.against, "columns": columns}

    def to_csv(self) -> str:
        """One line for each row and column."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ("row", "prompts", "metric", "mean", "standard_error", "difference", "low", "high", "significant")
        )
        for column in self.columns:
            for row, cell in column.cells.items():
                between = cell.difference
                ends = between.ci95 or ("", "") if between else ("", "")
                compared = (between.value, *ends, between.significant) if between else ("", *ends, "")
                writer.writerow((row, column.prompts, column.title, cell.mean, cell.standard_error, *compared))
        return text.getvalue()

    def to_markdown(self) -> str:
        """The table in Markdown. The best number of a column is bold."""
        header = ["", *(f"{self._title(column, ' ↑', ' ↓')}" for column in self.columns)]
        lines = [header, ["---", *("---:" for _ in self.columns)]]
        lines += [[row, *(self._text(column, row, "**", "**", " ± ") for column in self.columns)] for row in self.rows]
        return join_markdown(lines) + "\n\n" + "\n".join(f"{note}  " for note in self._all_notes()) + "\n"

    def to_latex(self) -> str:
        """The table in LaTeX, for booktabs."""
        titles = [_escape(self._title(column, "", "")) for column in self.columns]
        arrows = ["$\\uparrow$" if column.higher_is_better else "$\\downarrow$" for column in self.columns]
        header = " & ".join(["", *(f"{title} {arrow}" for title, arrow in zip(titles, arrows, strict=True))])
        lines = ["\\begin{tabular}{l" + "r" * len(self.columns) + "}", "\\toprule", header + " \\\\", "\\midrule"]
        for row in self.rows:
            cells = [self._text(column, row, "\\textbf{", "}", " {\\scriptsize$\\pm$") for column in self.columns]
            cells = [cell + "}" if "\\scriptsize" in cell else cell for cell in cells]
            lines.append(" & ".join([_escape(row), *cells]) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}", *(f"% {note}" for note in self._all_notes())]
        return "\n".join(lines) + "\n"

    def _title(self, column: Column, up: str, down: str) -> str:
        several = len({one.prompts for one in self.columns}) > 1
        return f"{column.prompts + ': ' if several else ''}{column.title}{up if column.higher_is_better else down}"

    def _text(self, column: Column, row: str, bold: str, unbold: str, between: str) -> str:
        cell = column.cells.get(row)
        if cell is None:
            return "-"
        number = f"{cell.mean:.{column.digits}f}"
        number = f"{bold}{number}{unbold}" if row == column.best and len(column.cells) > 1 else number
        mark = MARK if cell.difference is not None and cell.difference.significant else ""
        error = f"{between}{cell.standard_error:.{column.digits}f}" if cell.standard_error is not None else ""
        return f"{number}{mark}{error}"

    def _all_notes(self) -> list[str]:
        meaning = (
            f"Mean ± bootstrap standard error over prompts; {MARK}: the 95 % interval of the paired difference from "
            f"{self.against} does not contain 0."
        )
        return [meaning, *self.notes]


def join_markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown. Names, in the first line and the first cell of each other one, are never read as markup."""
    joined = []
    for number, line in enumerate(lines):
        names = len(line) if number == 0 else 1
        cells = [_MARKDOWN.sub(r"\\\g<0>", cell) for cell in line[:names]]
        cells += [cell.replace("|", "\\|") for cell in line[names:]]
        joined.append("| " + " | ".join(cells) + " |")
    return "\n".join(joined)


_MARKDOWN = re.compile(r"[\\`*<\[|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What means something in a line of Markdown; not an underscore within a word."""

_WORDS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {character: f"\\text{word}{{}}" for character, word in _WORDS.items()}
)


def _escape(text: str) -> str:
    return text.translate(_LATEX)
