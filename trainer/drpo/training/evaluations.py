"""evaluations.jsonl: what the evaluations during training found, one line each.

{"step": 100, "time_s": 81.2, "seconds": 4.0, "images": 72, "grid": "samples/step-100.png",
 "present": {"geneval": 0.71, "geneval/strict": 0.52, "guard/diversity": 0.94, "guard/distance_to_base": 0.31}}

`present` is of the trained adapter, `averaged` likewise of the averaged one. Numbers are in the reward's own unit, each
a mean over tasks. An evaluation that failed has `error`; one that ended the run has `stopped`, a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drpo.training.files import storing, write_text
from drpo.training.metrics import read_metrics

EVALUATIONS_FILE = "evaluations.jsonl"

read_evaluations = read_metrics
"""The lines of an evaluations.jsonl, in order; what is not a whole line is skipped."""


class EvaluationsLog:
    """Appends the evaluations of a run. On opening it deletes those later than `after`, which will be made again.

    Args:
        path: the file.
        after: the last step to keep; 0 for a new run.
    """

    def __init__(self, path: Path, *, after: int) -> None:
        self._path = path
        self.lines = [line for line in read_evaluations(path) if line["step"] <= after]
        if path.exists():
            write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds one evaluation.

        Raises:
            StorageError: it could not be written.
        """
        self.lines.append(dict(line))
        with storing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
