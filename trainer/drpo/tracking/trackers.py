"""The trackers of a run, each on a thread of its own, and what they get."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drpo.config import Config
from drpo.errors import StorageError
from drpo.training.files import write_text
from drpo.training.run_folder import ADAPTER

IDENTITIES_FILE = "trackers.json"
END_S = 60.0
"""Seconds that all trackers together may take for what they have not sent yet, when the run has ended."""

Warn = Callable[[str], None]
_Job = Callable[[Any], None]


class Trackers:
    """Sends what a run logs to every tracker of its settings. Use it in a `with` block.

    Args:
        config: the settings of the run.
        run_dir: the run's folder. trackers.json in it says where a resumed run goes on.
        warn: called, on any thread, with a sentence, once for each tracker that breaks; it then gets nothing more.
    """

    def __init__(self, config: Config, run_dir: Path, *, warn: Warn) -> None:
        self._run_dir = run_dir
        self._config = config
        self._identities = _Identities(run_dir / IDENTITIES_FILE)
        self._threads = [_TrackerThread(name, config, run_dir, self._identities, warn) for name in config.trackers.use]

    def log_step(self, metrics: Mapping[str, Any]) -> None:
        """Sends the metrics of a step: a line of metrics.jsonl."""
        values: dict[str, float] = {}
        for name, value in metrics.items():
            if name == "seconds":
                values |= {f"seconds/{stage}": seconds for stage, seconds in value.items()}
            elif name != "step" and value is not None:
                values[name if "/" in name else f"train/{name}"] = value
        self._send(lambda tracker: tracker.log(values, step=metrics["step"]))

    def log_evaluation(self, line: Mapping[str, Any]) -> None:
        """Sends an evaluation during training: a line of evaluations.jsonl, and its pictures."""
        from drpo.tracking.backends import log_picture

        step = line["step"]
        values = {f"evaluation/{name}": value for name, value in line.get("present", {}).items()}
        values |= {f"evaluation_averaged/{name}": value for name, value in line.get("averaged", {}).items()}
        if values:
            self._send(lambda tracker: tracker.log(values, step=step))
        if line.get("grid"):
            self._send(lambda tracker: log_picture(tracker, "samples", self._run_dir / line["grid"], step))

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Sends the results of the run: its summary.json, and where the adapter and the report are."""
        from drpo.tracking.backends import log_results

        results: dict[str, float | str] = {
            "adapter": str(self._run_dir / ADAPTER),
            "report": str(self._run_dir / "report.html"),
        }
        for name, row in (summary.get("numbers") or {}).items():
            results |= {f"summary/{name}/{side}": row[side] for side in ("base", "tuned", "difference")}
        if summary.get("stopped"):
            results["stopped"] = summary["stopped"]
        self._send(lambda tracker: log_results(tracker, results, summary["steps"]))

    def _send(self, job: _Job) -> None:
        for thread in self._threads:
            thread.jobs.put(job)

    def __enter__(self) -> Trackers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for thread in self._threads:
            thread.jobs.put(None)
        deadline = time.monotonic() + END_S
        for thread in self._threads:
            thread.end(deadline)


class _TrackerThread(threading.Thread):
    """One tracker: starts it, hands it every job in order, and ends it. After its first error it does nothing."""

    def __init__(self, name: str, config: Config, run_dir: Path, identities: _Identities, warn: Warn) -> None:
        super().__init__(name=f"tracker-{name}", daemon=True)
        self.tracker_name = name
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._config = config
        self._run_dir = run_dir
        self._identities = identities
        self._warn = warn

    def run(self) -> None:
        from drpo.tracking.backends import identity_of, start_tracker

        name = self.tracker_name
        try:
            identity = self._identities.of(name)
            tracker = start_tracker(name, self._config.trackers, self._run_dir, identity)
            if not self._identities.knows(name):
                tracker.store_init_configuration(flatten(self._config.model_dump(mode="json")))
                self._identities.keep(name, identity_of(tracker))
            while (job := self.jobs.get()) is not None:
                job(tracker)
            tracker.finish()
        except BaseException as error:  # a tracker may fail with anything, and some call sys.exit
            reason = (str(error).strip().splitlines() or [""])[0]
            self._warn(f"the tracker {name} gets nothing more: {type(error).__name__}: {reason}")

    def end(self, deadline: float) -> None:
        """Waits for the last job. The thread is left behind if it takes too long."""
        self.join(max(0.0, deadline - time.monotonic()))
        if self.is_alive():
            self._warn(f"the tracker {self.tracker_name} has not taken everything within {END_S:.0f} s")


class _Identities:
    """trackers.json: for each tracker that has started, what a resumed run needs to go on there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        self._known: dict[str, str | None] = found if isinstance(found, dict) else {}

    def knows(self, name: str) -> bool:
        return name in self._known

    def of(self, name: str) -> str | None:
        return self._known.get(name)

    def keep(self, name: str, identity: str | None) -> None:
        with self._lock:
            self._known[name] = identity
            try:
                write_text(self._path, json.dumps(self._known) + "\n")
            except StorageError:  # a resumed run then begins anew there
                return


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """All settings by their dotted keys; what is neither a number nor a text becomes one."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return flat
