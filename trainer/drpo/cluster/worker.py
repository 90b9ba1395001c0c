"""The training loop on a Ray Train worker: load, continue from the last checkpoint, then run steps and save.

All workers make the same decisions: they have the same metrics, and they gather what only one of them knows (an error
while loading, the time, a request to stop).
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drpo.config import Config
from drpo.errors import DrpoError, ModelLoadError, StorageError, TrainingStoppedError
from drpo.training.run_folder import ADAPTER, ADAPTER_EMA, CHECKPOINTS
from drpo.training.run_lock import is_taken_over

if TYPE_CHECKING:
    import torch

    from drpo.data.prompts import PromptOrder
    from drpo.generators import OneStepGenerator
    from drpo.method.features import FeatureMap
    from drpo.training.parts import Supervision
    from drpo.training.trainer import DrPOTrainer
    from drpo.watching import RunWatch

STOP_FILE = "stop"
"""The driver writes this file into the run's folder to ask the workers to stop early."""


def train_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """The function that Ray Train calls on each worker.

    Args:
        arguments: `config` (a dumped `Config` with absolute paths), `run_dir`, the `token` of the driver's `RunLock`,
            or None, and `held_out`, prompts that may not be trained on.

    Returns:
        `status` ("finished", "time", "guard", "interrupted" or "stopped"), `reason`, `step` and `seconds`; the same on
        every worker. An error that a restart would repeat is returned as "stopped", because Ray Train restarts the
        workers after every exception.
    """
    from drpo.training import collective
    from drpo.training.build import ranks_candidates
    from drpo.training.choices import settle_decoding, settle_memory
    from drpo.training.mixture import settle_mixture
    from drpo.training.parts import build_parts, make_trainer

    config = Config.model_validate(arguments["config"])
    run_dir = Path(arguments["run_dir"])
    with ExitStack() as stack:
        try:
            device = _find_device(config)
            if ranks_candidates(config):
                settle_mixture(config, run_dir)
            config = settle_memory(config, run_dir, device)
            parts = collective.call_together(lambda: build_parts(config, str(device)))
            settle_decoding(config, run_dir, parts.generator)
            supervision, order = collective.call_together(
                lambda: _supervise(config, run_dir, arguments["held_out"], parts.generator, stack)
            )
            trainer = collective.call_together(lambda: make_trainer(config, run_dir.name, parts, supervision))
            loop = collective.call_together(lambda: _Loop(config, run_dir, trainer, order, arguments["token"]))
            if config.evaluates_during_training:
                loop.watch = collective.call_together(
                    lambda: _make_watch(config, run_dir, trainer, parts.feature_map, stack)
                )
        except DrpoError as error:
            return {"status": "stopped", "reason": str(error), "step": 0, "seconds": 0.0}
        return loop.run()


def _first_error(error: str) -> str:
    """The error of the first worker that has one, on every worker; "" if none has."""
    from drpo.training import collective

    return next(filter(None, collective.gather(error)), "")


def _find_device(config: Config) -> torch.device:
    """Where this worker computes."""
    import ray.train.torch
    import torch

    device = ray.train.torch.get_device() if config.model.device == "auto" else torch.device(config.model.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # torch.distributed sends Python objects through this device
    return device


def _supervise(
    config: Config, run_dir: Path, held_out: list[str], generator: OneStepGenerator, stack: ExitStack
) -> tuple[Supervision, PromptOrder]:
    """What supervises the run, and the order of its prompts; a file says what of an offline run is encoded."""
    from drpo.training.encoding import EncodingCount
    from drpo.training.parts import supervise
    from drpo.training.ranking_client import make_ranker

    count = EncodingCount(run_dir)
    supervised = supervise(config, generator, lambda: make_ranker(config), stack, held_out, count.write)
    count.remove()
    return supervised


def _make_watch(
    config: Config, run_dir: Path, trainer: DrPOTrainer, feature_map: FeatureMap | None, stack: ExitStack
) -> RunWatch:
    """What evaluates the run while it trains."""
    from drpo.training.ranking_client import make_ranking_client
    from drpo.watching import RunWatch

    client = stack.enter_context(make_ranking_client(config.rewards))
    return RunWatch(config, run_dir, trainer, feature_map, client)


class _Loop:
    """The steps of one worker, starting from the newest whole checkpoint."""

    def __init__(
        self, config: Config, run_dir: Path, trainer: DrPOTrainer, order: PromptOrder, token: str | None
    ) -> None:
        from drpo.cluster.gauges import RunGauges
        from drpo.training import collective
        from drpo.training.metrics import MetricsLog
        from drpo.training.resume import fixed_settings

        self.settings = config.training
        self.fixed_settings = fixed_settings(config)
        self.run_dir = run_dir
        self.trainer = trainer
        self.order = order
        self.token = token
        self.elapsed_before = 0.0
        self.saved_at = -1
        self.watch: RunWatch | None = None
        self.guard = ""
        collective.broadcast_parameters(trainer.parameters)
        self._restore()
        self.started = time.perf_counter()
        is_first = collective.rank() == 0
        self.log = MetricsLog(run_dir, after=trainer.step) if is_first else None
        self.gauges = RunGauges(run_dir.name) if is_first else None

    @property
    def elapsed(self) -> float:
        """Seconds of training, including those before a restart."""
        return self.elapsed_before + time.perf_counter() - self.started

    def run(self) -> dict[str, Any]:
        """Runs steps until the run ends. Returns what `train_worker` returns."""
        trainer, settings = self.trainer, self.settings
        status, reason = "finished", ""
        try:
            early_end = self._evaluate()
            while early_end is None and trainer.step < settings.steps:
                metrics = trainer.run_step(*trainer.take_prompts(self.order))
                self._record(metrics)
                trainer.check_failures()
                early_end = self._early_end() or self._evaluate()
                if trainer.step % settings.checkpoint_every == 0:
                    self._save()
            status = early_end or "finished"
            if status == "guard":
                reason = self.guard
            elif status != "interrupted":
                self._evaluate(last=True)
        except TrainingStoppedError as error:
            status, reason = "stopped", str(error)
        except StorageError as error:  # another checkpoint could not be written either
            return self._outcome("stopped", str(error))
        finally:
            if self.log is not None:
                self.log.close()
        if trainer.step != self.saved_at:
            try:
                self._save()
            except StorageError as error:
                return self._outcome("stopped", " ".join(filter(None, [reason, str(error)])))
        return self._outcome(status, reason)

    def _evaluate(self, *, last: bool = False) -> str | None:
        """Evaluates the adapter if it is time. Returns "guard" if the run must end because of what was found."""
        if self.watch is None:
            return None
        self.guard = self.watch.visit(self.elapsed, last=last)
        return "guard" if self.guard else None

    def _outcome(self, status: str, reason: str) -> dict[str, Any]:
        return {"status": status, "reason": reason, "step": self.trainer.step, "seconds": self.elapsed}

    def _record(self, metrics: dict[str, Any]) -> None:
        """Logs a step's metrics on the first worker; every worker must call this.

        Raises:
            StorageError: the run's folder cannot be written, or another driver has taken over the run.
        """
        error = ""
        try:
            if self.token is not None and is_taken_over(self.run_dir, self.token):
                raise StorageError("another process has taken over the run")
            if self.log is not None:
                self.log.write({"step": metrics["step"], "time_s": round(self.elapsed, 3), **metrics})
        except StorageError as caught:
            error = str(caught)
        if error := _first_error(error):
            raise StorageError(error)
        if self.gauges is not None:
            self.gauges.show(metrics)

    def _early_end(self) -> str | None:
        """The status with which the run must end now, or None. The first worker decides."""
        from drpo.training import collective

        limit = self.settings.max_seconds
        status = None
        if (self.run_dir / STOP_FILE).exists():
            status = "interrupted"
        elif limit is not None and self.elapsed >= limit:
            status = "time"
        return collective.gather(status)[0]

    def _restore(self) -> None:
        """Restores the newest whole checkpoint, if there is one. The first worker chooses it.

        Raises:
            DrpoError: no checkpoint is whole, or it is of another adapter.
        """
        from drpo.training import collective
        from drpo.training.checkpoint import find_newest_checkpoint, read_checkpoint
        from drpo.training.random_state import set_random_state

        path, error = None, ""
        if collective.rank() == 0:
            try:
                path = find_newest_checkpoint(self.run_dir / CHECKPOINTS).path
            except DrpoError as caught:
                error = str(caught)
        path, error = collective.gather((path, error))[0]
        if error:
            raise ModelLoadError(error)
        if path is not None:
            state = read_checkpoint(path)
            self.trainer.load_state_dict(state["trainer"])
            self.elapsed_before, self.saved_at = state["elapsed_s"], self.trainer.step
            if len(state["random"]) == collective.world_size():
                set_random_state(state["random"][collective.rank()])

    def _save(self) -> None:
        """Writes a checkpoint on the first worker and reports it to Ray Train; every worker must call this.

        Raises:
            StorageError: it could not be written. The last one is unchanged.
        """
        import ray.train
        from ray.train import Checkpoint, CheckpointUploadMode

        from drpo.training import collective
        from drpo.training.checkpoint import publish_adapter, write_checkpoint
        from drpo.training.random_state import random_state

        step = self.trainer.step
        states = collective.gather(random_state())
        checkpoint, error = None, ""
        if collective.rank() == 0:
            state = {"step": step, "trainer": self.trainer.state_dict(), "elapsed_s": self.elapsed, "random": states}
            adapter, keep = self.trainer.generator.adapter, self.settings.keep_checkpoints
            try:
                path = write_checkpoint(
                    self.run_dir / CHECKPOINTS, state, adapter, keep=keep, settings=self.fixed_settings
                )
                publish_adapter(adapter, self.run_dir / ADAPTER)
                if self.trainer.average is not None:
                    with self.trainer.average.applied():
                        publish_adapter(adapter, self.run_dir / ADAPTER_EMA)
                checkpoint = Checkpoint.from_directory(str(path))
            except StorageError as caught:
                error = str(caught)
        if error := _first_error(error):
            raise StorageError(error)
        self.saved_at = step
        ray.train.report({"step": step}, checkpoint=checkpoint, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)
