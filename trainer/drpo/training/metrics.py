"""metrics.jsonl and TensorBoard: each optimizer step is logged once, even if the run restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drpo.training.run_folder import METRICS_FILE


class MetricsLog:
    """Appends the metrics of each step. On opening it deletes the steps later than `after`, which will run again.

    Args:
        run_dir: the run's folder, with metrics.jsonl and tensorboard/.
        after: the last step to keep; 0 for a new run.
    """

    def __init__(self, run_dir: Path, *, after: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = run_dir / METRICS_FILE
        kept = [line for line in read_metrics(path) if line["step"] <= after]
        partial = path.with_name(f".partial-{path.name}")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        partial.replace(path)
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=after + 1 if after else None, flush_secs=5)

    def write(self, metrics: dict[str, Any]) -> None:
        """Adds one step's metrics."""
        self._file.write(json.dumps(metrics) + "\n")
        for name, value in metrics.items():
            if name == "seconds":
                for stage, seconds in value.items():
                    self._board.add_scalar(f"seconds/{stage}", seconds, metrics["step"])
            elif name != "step" and value is not None:
                self._board.add_scalar(name if "/" in name else f"train/{name}", value, metrics["step"])

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, in order. An incomplete last line, left by a kill, is skipped."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
