"""evaluations.jsonl: what the evaluations during training found, one line each.

{"step": 100, "time_s": 81.2, "seconds": 4.0, "images": 72, "grid": "samples/step-100.png",
 "present": {"geneval": 0.71, "geneval/strict": 0.52, "guard/diversity": 0.94, "guard/distance_to_base": 0.31}}

`present` is of the trained adapter, `averaged` likewise of the averaged one. Numbers are in the reward's own unit, each
a mean over tasks. An evaluation that failed has `error`; one that ended the run has `stopped`, a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from drpo.config import StopCondition
from drpo.errors import EvaluationError
from drpo.training.files import storing, write_text
from drpo.training.metrics import read_metrics

EVALUATIONS_FILE = "evaluations.jsonl"

read_evaluations = read_metrics
"""The lines of an evaluations.jsonl, in order; what is not a whole line is skipped."""


def find_number(line: Mapping[str, Any], name: str, setting: str) -> float:
    """A number that an evaluation found.

    Args:
        line: the evaluation.
        name: of the number.
        setting: which setting asks for it.

    Raises:
        EvaluationError: the evaluation has no such number.
    """
    found = line.get("present", {})
    if name not in found:
        raise EvaluationError(f"{setting}: the evaluation has no number {name!r}; it has {', '.join(found)}")
    return float(found[name])


def judge_stop(line: Mapping[str, Any], stop_if: str | None) -> str:
    """Why a run must end after an evaluation, as a sentence; "" if it need not. The base, at step 0, ends no run.

    Args:
        line: the evaluation.
        stop_if: the setting `training.stop_if`.

    Raises:
        EvaluationError: the evaluation has not the number that decides.
    """
    if stop_if is None or line["step"] == 0:
        return ""
    condition = StopCondition.parse(stop_if)
    value = find_number(line, condition.metric, "training.stop_if")
    if not condition.holds(value):
        return ""
    side = "below" if condition.below else "above"
    return f"{condition.metric} is {value:.4g}, {side} {condition.limit:g} (training.stop_if)"


def judge_again(lines: Sequence[Mapping[str, Any]], step: int, stop_if: str | None) -> str | None:
    """As `judge_stop`, of the evaluation of a step that is there already; None if there is none.

    If it has not the number that decides, because other rewards scored it, the next evaluation decides.
    """
    for line in lines:
        if line["step"] == step and "error" not in line:
            with suppress(EvaluationError):
                return judge_stop(line, stop_if)
            return ""
    return None


def why_ended(lines: Sequence[Mapping[str, Any]], step: int) -> str:
    """What the newest evaluation ended a run with, as a sentence; "" if it did not, or if the run has trained on since.

    Args:
        lines: the evaluations of the run.
        step: the last step of the run.
    """
    return str(lines[-1].get("stopped") or "") if lines and lines[-1]["step"] == step else ""


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
