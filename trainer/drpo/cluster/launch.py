"""The driver's side of a run: check, make the run's folder, hand the workers to Ray Train, watch, and end cleanly.

    outcome = train(config, run_dir)        # Ray is running and config.rewards.address is set

Ray Train restarts lost workers, which go on from the last checkpoint in the run's folder. Where to go on is decided
by what lies in that folder and by nothing that Ray remembers, so a driver that was killed resumes in the same way.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from drpo.cluster.environment import prepare
from drpo.cluster.worker import STOP_FILE, train_worker
from drpo.config import Config, parse_config
from drpo.errors import ConfigError, TrainingStoppedError
from drpo.training.metrics import read_metrics

CONFIG_FILE = "config.yaml"
CHECKPOINTS = "checkpoints"

Watcher = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "finished" (all its steps), "time" (its seconds were over) or "interrupted" (someone asked)."""

    status: str
    step: int
    seconds: float


def create_run(config: Config) -> Path:
    """Makes the folder of a new run, FOLDER/NAME, and writes the resolved config into it. Returns its absolute path.

    Raises:
        ConfigError: the name is taken.
    """
    name = config.run.name or f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = config.run.folder.expanduser().resolve()
    run_dir, number = folder / name, 2
    while run_dir.exists():
        if config.run.name:
            raise ConfigError(f"run.name: {run_dir} exists; choose another name, or go on with it: --resume {run_dir}")
        run_dir, number = folder / f"{name}-{number}", number + 1
    run_dir.mkdir(parents=True)
    write_config(config, run_dir)
    return run_dir


def write_config(config: Config, run_dir: Path) -> None:
    """Writes the resolved config of a run."""
    (run_dir / CONFIG_FILE).write_text(config.to_yaml())


def read_config(run_dir: Path) -> Config:
    """The config of an existing run.

    Raises:
        ConfigError: there is no run in that folder.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{run_dir} is not a run: it has no {CONFIG_FILE}")
    return parse_config(yaml.safe_load(path.read_text()))


def find_run(path: Path) -> Path | None:
    """The run's folder that a path is, or lies in (its adapter, one of its checkpoints)."""
    return next(
        (folder for folder in list((path.resolve() / "x").parents)[:4] if (folder / CONFIG_FILE).is_file()), None
    )


def train(config: Config, run_dir: Path, *, watch: Watcher | None = None, poll_s: float = 0.2) -> Outcome:
    """Trains a run to its end, from its newest checkpoint if it has one.

    Args:
        config: as `drpo.training.check.check_config` left it, with `rewards.address`.
        run_dir: absolute path of the run's folder.
        watch: called with each step's metrics, on this thread, as they appear.
        poll_s: seconds between looks at the metrics.

    Raises:
        TrainingStoppedError: the run gave up; the message says why.
        KeyboardInterrupt: on a second Ctrl-C; the first one ends the run after its present step, with a checkpoint.
    """
    prepare()  # Ray Train hands its settings on to the workers when the run starts
    if config.rewards.address is None:
        raise ConfigError("rewards.address: start a ranking service first, and give its address")
    (run_dir / STOP_FILE).unlink(missing_ok=True)
    # Ray Train would silently go on from what it remembers of an earlier start under the same name. The folder
    # decides instead.
    (run_dir / CHECKPOINTS / "checkpoint_manager_snapshot.json").unlink(missing_ok=True)

    fit = _Fit(config, run_dir)
    tail = _Tail(run_dir / "metrics.jsonl", watch)
    fit.start()
    while not fit.done.is_set():
        try:
            fit.done.wait(poll_s)  # not join: Python forgets a thread whose join was interrupted
            tail.read()
        except KeyboardInterrupt:
            if (run_dir / STOP_FILE).exists():
                raise
            (run_dir / STOP_FILE).touch()
    tail.read()
    (run_dir / STOP_FILE).unlink(missing_ok=True)
    answer = fit.answer()
    if answer["status"] == "stopped":
        raise TrainingStoppedError(answer["reason"])
    return Outcome(answer["status"], answer["step"], answer["seconds"])


class _Fit(threading.Thread):
    """Ray Train's fit() on a thread of its own:

    on the main thread it would take Ctrl-C for itself and abort the workers.
    """

    def __init__(self, config: Config, run_dir: Path) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._config = config
        self._run_dir = run_dir
        self._answer: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            # The V2 result has what the first worker returned.
            self._answer = self._trainer().fit().return_value  # type: ignore[attr-defined]
        except BaseException as error:  # handed to the main thread by `answer`
            self._error = error
        finally:
            self.done.set()

    def _trainer(self) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        training = self._config.training
        resources = {"CPU": training.threads_per_worker, **(training.resources_per_worker or {})}
        return TorchTrainer(
            train_worker,  # type: ignore[arg-type]  # Ray's hint forbids a value to return
            train_loop_config={"config": self._config.model_dump(mode="json"), "run_dir": str(self._run_dir)},
            scaling_config=ScalingConfig(
                num_workers=training.num_workers, use_gpu=training.use_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=CHECKPOINTS,
                storage_path=str(self._run_dir),
                failure_config=FailureConfig(max_failures=training.max_failures),
            ),
        )

    def answer(self) -> dict[str, Any]:
        """What the first worker returned.

        Raises:
            TrainingStoppedError: the workers failed for good.
        """
        if self._error is not None:
            raise TrainingStoppedError(
                f"training failed: {_innermost(self._error)}. The checkpoints in {self._run_dir} are whole; "
                f"go on with --resume {self._run_dir}"
            ) from self._error
        assert self._answer is not None
        return self._answer


def _innermost(error: BaseException) -> str:
    """The message of a worker's own exception, without the layers that Ray puts around it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


class _Tail:
    """Follows a metrics.jsonl and hands on each step once, also when a restart has put its beginning in its place."""

    def __init__(self, path: Path, watch: Watcher | None) -> None:
        self._path = path
        self._watch = watch
        self._last = max((line["step"] for line in read_metrics(path)), default=0)
        self._file, self._offset = -1, 0

    def read(self) -> None:
        """Calls the watcher for each step that has appeared since the last call."""
        if self._watch is None or not self._path.exists():
            return
        with self._path.open() as lines:
            file = os.fstat(lines.fileno()).st_ino
            if file != self._file:
                self._file, self._offset = file, 0
            lines.seek(self._offset)
            while (text := lines.readline()).endswith("\n"):
                self._offset += len(text.encode())
                line = json.loads(text)
                if line["step"] > self._last:
                    self._last = line["step"]
                    self._watch(line)
