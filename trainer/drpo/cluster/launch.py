"""The driver of a run: starts the workers with Ray Train, watches the run, and ends it cleanly.

    outcome = train(config, run_dir)        # Ray is running and config.rewards.address is set

Ray Train restarts lost workers, which continue from the last checkpoint in the run's folder. Only the files in that
folder decide where to continue, not the state of Ray, so a run whose driver was killed resumes in the same way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drpo.cluster.worker import STOP_FILE, train_worker
from drpo.config import Config
from drpo.data.training import load_held_out_prompts
from drpo.errors import DrpoError, TrainingStoppedError
from drpo.training.build import ranks_candidates
from drpo.training.checkpoint import find_newest_checkpoint, step_of
from drpo.training.encoding import EncodingCount
from drpo.training.evaluations import EVALUATIONS_FILE
from drpo.training.metrics import parse_line, read_metrics
from drpo.training.ranking_client import service_address
from drpo.training.run_folder import CHECKPOINTS, METRICS_FILE
from drpo_rewards.cluster.environment import set_ray_environment

Watcher = Callable[[dict[str, Any]], None]

# What Ray says of a process that it ended because the machine's memory was nearly full.
RAY_WITHOUT_MEMORY = ("low on memory", "how to address the out of memory issue")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: "finished" (all steps done), "time" (`training.max_seconds` reached), "guard" (`training.stop_if` holds)
            or "interrupted" (by Ctrl-C).
        step: optimizer steps done.
        seconds: seconds of training, including those before a restart.
        reason: why a guard ended it, as a sentence; else "".
    """

    status: str
    step: int
    seconds: float
    reason: str = ""


def train(
    config: Config,
    run_dir: Path,
    *,
    token: str | None = None,
    watch: Watcher | None = None,
    watch_evaluation: Watcher | None = None,
    watch_encoding: Callable[[int], None] | None = None,
    poll_s: float = 0.2,
) -> Outcome:
    """Trains a run to its end, from its newest checkpoint if it has one.

    Args:
        config: the result of `drpo.checks.check_config`, with `rewards.address`.
        run_dir: absolute path of the run's folder.
        token: of the `RunLock` that this process holds; None: nothing guards against a second driver.
        watch: called on this thread with the metrics of each step, as soon as they are written.
        watch_evaluation: called likewise with each evaluation during training; see `drpo.training.evaluations`.
        watch_encoding: called in an offline run with the number of encoded preferences, whenever it has grown.
        poll_s: seconds between two reads of metrics.jsonl.

    Raises:
        ConfigError: `rewards.address` is not set, and the run ranks its candidates; or the prompts cannot be read.
        TrainingStoppedError: the run cannot continue; the message says why.
        KeyboardInterrupt: a second Ctrl-C. The first one ends the run after the current step, with a checkpoint.
    """
    set_ray_environment(for_training=True)  # Ray Train passes these variables to the workers when the run starts
    if ranks_candidates(config):
        service_address(config.rewards)  # raises if it is not set
    (run_dir / STOP_FILE).unlink(missing_ok=True)
    # With this file Ray Train would silently continue from the state of an earlier start under the same name.
    (run_dir / CHECKPOINTS / "checkpoint_manager_snapshot.json").unlink(missing_ok=True)

    fit = _Fit(config, run_dir, token, load_held_out_prompts(config))
    steps, evaluations = _Tail(run_dir / METRICS_FILE, watch), _Tail(run_dir / EVALUATIONS_FILE, watch_evaluation)
    encoded = EncodingCount(run_dir)
    fit.start()
    while not fit.done.is_set():
        try:
            fit.done.wait(poll_s)  # not join(): after an interrupted join() Python no longer waits for the thread
            if watch_encoding is not None and (count := encoded.read_if_new()) is not None:
                watch_encoding(count)
            _report(steps, evaluations)
        except KeyboardInterrupt:
            if (run_dir / STOP_FILE).exists() or not stop_run(run_dir):
                raise
    _report(steps, evaluations)
    with suppress(OSError):  # a folder that cannot be written any more; `result` says so
        (run_dir / STOP_FILE).unlink(missing_ok=True)
    result = fit.result()
    if result["status"] == "stopped":
        raise TrainingStoppedError(f"{result['reason'].rstrip('.')}. {_how_to_go_on(run_dir)}")
    return Outcome(result["status"], result["step"], result["seconds"], result["reason"])


def stop_run(run_dir: Path) -> bool:
    """Ends a run after its current step, with a checkpoint, as the first Ctrl-C does. Returns whether it is told."""
    try:
        (run_dir / STOP_FILE).touch()
    except OSError:
        return False
    return True


class _Fit(threading.Thread):
    """Runs Ray Train's fit() on a thread. On the main thread it would catch Ctrl-C and abort the workers."""

    def __init__(self, config: Config, run_dir: Path, token: str | None, held_out: list[str]) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._config = config
        self._run_dir = run_dir
        self._more = {"token": token, "held_out": held_out}
        self._result: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            # In Ray Train V2 `return_value` is what the first worker returned.
            self._result = self._trainer().fit().return_value  # type: ignore[attr-defined]
        except BaseException as error:  # `result` raises it on the main thread
            self._error = error
        finally:
            self.done.set()

    def _trainer(self) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        training = self._config.training
        resources = {"CPU": training.threads_per_worker, **(training.resources_per_worker or {})}
        return TorchTrainer(
            train_worker,  # type: ignore[arg-type]  # Ray's type hint forbids a return value
            train_loop_config={
                "config": self._config.model_dump(mode="json"),
                "run_dir": str(self._run_dir),
                **self._more,
            },
            scaling_config=ScalingConfig(
                num_workers=training.num_workers, use_gpu=training.use_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=CHECKPOINTS,
                storage_path=str(self._run_dir),
                failure_config=FailureConfig(max_failures=training.max_failures),
            ),
        )

    def result(self) -> dict[str, Any]:
        """What the first worker returned.

        Raises:
            TrainingStoppedError: the workers failed more often than `training.max_failures` allows.
        """
        if self._error is not None:
            raise TrainingStoppedError(
                f"training failed: {_worker_message(self._error)}. {_how_to_go_on(self._run_dir)}"
            ) from self._error
        assert self._result is not None
        return self._result


def _how_to_go_on(run_dir: Path) -> str:
    """What the user of a failed run can do next."""
    try:
        newest = find_newest_checkpoint(run_dir / CHECKPOINTS).path
    except DrpoError as error:
        return f"The run cannot go on: {error}"
    if newest is None:
        return f"The run has no checkpoint yet. After removing the cause, start it again with --resume {run_dir}"
    return f"To go on from the checkpoint of step {step_of(newest)}, use --resume {run_dir}"


def _worker_message(error: BaseException) -> str:
    """The message of the worker's exception, without the exceptions that Ray wraps around it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    if any(sign in text for sign in RAY_WITHOUT_MEMORY):  # the last line is advice on Ray's own settings
        return (
            "the machine had no memory left, so Ray ended a worker; end other programs there, or take fewer "
            "training.num_workers, or training.memory auto"
        )
    lines = text.splitlines()
    return lines[-1] if lines else type(error).__name__


class _Tail:
    """Follows a metrics.jsonl or evaluations.jsonl. Each step is reported once, even after a restart."""

    def __init__(self, path: Path, watch: Watcher | None) -> None:
        self._path = path
        self._watch = watch
        self._last = max((line["step"] for line in read_metrics(path)), default=-1)
        self._file, self._offset = -1, 0

    def read(self) -> list[tuple[int, Callable[[], None]]]:
        """For each line that has appeared since the last call: its step, and what calls the watcher with it."""
        found: list[tuple[int, Callable[[], None]]] = []
        if self._watch is None or not self._path.exists():
            return found
        with self._path.open("rb") as lines:
            file = os.fstat(lines.fileno()).st_ino
            if file != self._file:
                self._file, self._offset = file, 0
            lines.seek(self._offset)
            while (text := lines.readline()).endswith(b"\n"):
                self._offset += len(text)
                line = parse_line(text)
                if line is not None and line["step"] > self._last:
                    self._last = line["step"]
                    found.append((line["step"], partial(self._watch, line)))
        return found


def _report(steps: _Tail, evaluations: _Tail) -> None:
    """Calls the watchers in the order of the steps: first with the metrics of a step, then with its evaluation.

    An evaluation is written before the next step is, so it is read after the steps.
    """
    new = steps.read()
    for _, call in sorted([*new, *evaluations.read()], key=lambda one: one[0]):
        call()
