"""A table of results in Markdown, LaTeX and CSV."""

from __future__ import annotations

from drpo.evaluation.table.render import Column, Table
from drpo.evaluation.table.statistics import Cell


def test_names_are_escaped_in_files_too() -> None:
    names = ["a_b & 50%", "_x_ *s* `c` <i>", "a|b", "#1 {q} ~^\\"]
    table = Table(names, names[0], [Column("p", "r_1 %", cells={name: Cell(1.0) for name in names})])
    markdown = table.to_markdown().splitlines()
    assert markdown[0] == "|  | r_1 % ↑ |"
    assert [line.rpartition(" | ")[0] for line in markdown[2:6]] == [
        "| a_b & 50%", r"| \_x\_ \*s\* \`c\` \<i>", r"| a\|b", r"| #1 {q} ~^\\",
    ]  # fmt: skip
    latex = table.to_latex().splitlines()
    assert latex[2] == r" & r\_1 \% $\uparrow$ \\"
    assert [line.partition(" & ")[0] for line in latex[4:8]] == [
        r"a\_b \& 50\%",
        r"\_x\_ *s* `c` \textless{}i\textgreater{}",
        r"a\textbar{}b",
        r"\#1 \{q\} \textasciitilde{}\textasciicircum{}\textbackslash{}",
    ]
