"""Rows of results: written one by one as they are measured, then read as a whole and shown as Markdown."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.gpu.parts import PARTS

ROWS, JSON, MARKDOWN, LOG = "rows.jsonl", "results.json", "results.md", "log.txt"
Value = str | float | int | bool | None


class Record:
    """Appends the rows of one part to the file of all rows."""

    def __init__(self, out: Path, part: str) -> None:
        self._path = out / ROWS
        self._part = part

    def row(self, table: str, **columns: Value) -> None:
        """Adds a row to a table of this part. Underscores in the names of columns are shown as spaces."""
        self._append({"table": table, "row": columns})
        print(f"{self._part}: {table}: " + ", ".join(f"{name} {_cell(value)}" for name, value in columns.items()))

    def note(self, text: str) -> None:
        """Adds a sentence that is shown above the tables of this part."""
        self._append({"note": text})

    def status(self, status: str, seconds: float, reason: str = "") -> None:
        """Says how the part ended: "done", "skipped", "stopped" (at its limit) or "failed"."""
        self._append({"status": status, "seconds": seconds, "reason": reason})

    def machine(self, facts: Mapping[str, Value]) -> None:
        """Says on which machine the rows were measured."""
        self._append({"machine": dict(facts)})

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"part": self._part, **line}) + "\n")


def read_results(out: Path) -> dict[str, Any]:
    """The rows so far, as {"machine": ..., "parts": {name: {title, status, tables, ...}}}."""
    results: dict[str, Any] = {"machine": {}, "parts": {}}
    for text in (out / ROWS).read_text().splitlines():
        line = json.loads(text)
        if "machine" in line:
            results["machine"] = line["machine"]
            continue
        name = line["part"]
        empty = {"title": PARTS[name].title, "status": "running", "notes": [], "tables": {}}
        part = results["parts"].setdefault(name, empty)
        if "table" in line:
            part["tables"].setdefault(line["table"], []).append(line["row"])
        elif "note" in line:
            part["notes"].append(line["note"])
        else:
            part |= {key: line[key] for key in ("status", "seconds", "reason")}
    return results


def write_results(out: Path) -> None:
    """Writes `results.json` and `results.md` from the rows so far."""
    results = read_results(out)
    (out / JSON).write_text(json.dumps(results, indent=1) + "\n")
    (out / MARKDOWN).write_text(to_markdown(results))


def to_markdown(results: Mapping[str, Any]) -> str:
    """The results as a section of Markdown, which can be pasted into a page as it is."""
    machine = results["machine"]
    lines = [f"Measured on {machine.get('date', time.strftime('%Y-%m-%d'))}, with random weights in the public sizes:"]
    lines += [", ".join(f"{name} {value}" for name, value in machine.items() if name != "date") + "."]
    for part in results["parts"].values():
        lines += ["", f"### {part['title']}", ""]
        ending = f"{part['status']}: {part['reason']}" if part.get("reason") else part["status"]
        if part["status"] != "done":
            lines += [f"**{ending}**", ""]
        for note in part["notes"]:
            lines += [note, ""]
        for title, rows in part["tables"].items():
            lines += [*_table(title, rows), ""]
        if "seconds" in part:
            lines.append(f"This part took {part['seconds']:.0f} s.")
    return "\n".join(lines).rstrip() + "\n"


def _table(title: str, rows: list[dict[str, Value]]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"**{title}**", "", "| " + " | ".join(name.replace("_", " ") for name in columns) + " |"]
    lines.append("|" + "|".join("---" if isinstance(rows[0].get(name), str) else "---:" for name in columns) + "|")
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]
    return lines


def _cell(value: Value) -> str:
    """A number with three significant digits, anything else as it is."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
