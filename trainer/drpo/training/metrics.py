"""metrics.jsonl: each optimizer step is logged once, even if the run restarts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from drpo.training.files import storing, write_text
from drpo.training.run_folder import METRICS_FILE

_AMOUNTS = ("step", "time_s", "images", "images_per_s")
_MOST = 1e15


class MetricsLog:
    """Appends the metrics of each step. On opening it deletes the steps later than `after`, which will run again.

    Args:
        run_dir: the run's folder, with metrics.jsonl.
        after: the last step to keep; 0 for a new run.
    """

    def __init__(self, run_dir: Path, *, after: int = 0) -> None:
        path = run_dir / METRICS_FILE
        kept = [line for line in read_metrics(path) if line["step"] <= after]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._path = path
        with storing(path):
            self._file = path.open("a", buffering=1, encoding="utf-8")

    def write(self, metrics: dict[str, Any]) -> None:
        """Adds one step's metrics.

        Raises:
            StorageError: they could not be written.
        """
        with storing(self._path):
            self._file.write(json.dumps(metrics) + "\n")

    def close(self) -> None:
        """Closes the file. What a full disk does not take was already reported by `write`."""
        with suppress(OSError):
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, in order. What is not a step, such as the incomplete line of a kill, is skipped."""
    if not path.exists():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in map(parse_line, texts) if line is not None]


def last_step(metrics: Sequence[Mapping[str, Any]]) -> int:
    """The last step in the lines of a metrics.jsonl; 0 before the first one."""
    return int(metrics[-1]["step"]) if metrics else 0


def parse_line(text: str | bytes) -> dict[str, Any] | None:
    """The metrics in a line of a metrics.jsonl; None if the line is none, such as what a kill or a full disk left."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        return None
    seconds = line.get("seconds", 0.0)  # of an evaluation; or of the stages of a step
    durations = seconds.values() if isinstance(seconds, dict) else [seconds]
    return line if all(map(_is_amount, (*(line.get(name, 0) for name in _AMOUNTS), *durations))) else None


def _is_amount(value: Any) -> bool:
    """Whether a value can be a count or a duration: neither negative nor infinite, and a number at all."""
    return type(value) in (int, float) and 0 <= value < _MOST
