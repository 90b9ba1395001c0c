"""What every Ray Train worker runs: load, continue from the last checkpoint, step, checkpoint, until done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from drpo.config import Config

STOP_FILE = "stop"
"""The driver writes this file into the run's folder to ask for an early end."""


def train_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """The function that Ray Train calls on each worker.

    Args:
        arguments: `config` (a dumped `Config` with absolute paths) and `run_dir`.

    Returns:
        `status` ("finished", "time", "interrupted" or "stopped"), `reason` and `step`; the same on every worker.
    """
    import ray.train
    import ray.train.torch
    import torch

    from drpo.build import build_feature_map, build_generator, build_objective, build_ranker
    from drpo.prompts import PromptOrder, load_prompts
    from drpo.training import collective
    from drpo.training.checkpoint import checkpoints, random_state, read_checkpoint, seed_everything, set_random_state
    from drpo.training.metrics import MetricsLog
    from drpo.training.ranking import RankingLoop
    from drpo.training.trainer import DrPOTrainer

    config = Config.model_validate(arguments["config"])
    run_dir = Path(arguments["run_dir"])
    training = config.training
    torch.set_num_threads(training.threads_per_worker)
    device = str(ray.train.torch.get_device()) if config.model.device == "auto" else config.model.device
    is_first = collective.rank() == 0

    seed_everything(config.run.seed)  # every worker starts the same adapter
    generator = build_generator(config, device=device)
    collective.broadcast_parameters(generator.trainable_parameters())
    seed_everything(config.run.seed + 1 + collective.rank())
    order = PromptOrder(load_prompts(config.prompts), seed=config.run.seed, balance_tasks=config.prompts.balance_tasks)
    ranking = RankingLoop(lambda: build_ranker(config))
    trainer = DrPOTrainer(
        generator,
        build_feature_map(config, device=device),
        build_objective(config),
        ranking,
        training,
        config.optimizer,
        seed=config.run.seed,
        name=run_dir.name,
    )

    # The newest whole checkpoint on the disk is where to go on, after a lost worker as after a lost driver.
    elapsed_before = 0.0
    found = collective.gather(
        str(path) if (path := next(reversed(checkpoints(run_dir / "checkpoints")), None)) else None
    )[0]
    if found is not None:
        state = read_checkpoint(Path(found))
        trainer.load_state_dict(state["trainer"])
        elapsed_before = state["elapsed_s"]
        if len(state["random"]) == collective.world_size():
            set_random_state(state["random"][collective.rank()])

    log = MetricsLog(run_dir, after=trainer.step) if is_first else None
    started = time.perf_counter()
    status, reason = "finished", ""
    saved_at = trainer.step if found is not None else -1

    def save() -> None:
        nonlocal saved_at
        elapsed = elapsed_before + time.perf_counter() - started
        state = {"trainer": trainer.state_dict(), "elapsed_s": elapsed, "random": collective.gather(random_state())}
        _report(state, trainer, run_dir, training.keep_checkpoints)
        saved_at = trainer.step

    try:
        while status == "finished" and trainer.step < training.steps:
            metrics = trainer.run_step(order.take(trainer.step, training.groups_per_step))
            elapsed = elapsed_before + time.perf_counter() - started
            if log is not None:
                log.write({"step": metrics["step"], "time_s": round(elapsed, 3), **metrics})
            reason = trainer.too_many_failures()
            status = "stopped" if reason else collective.gather(_status(run_dir, elapsed, training.max_seconds))[0]
            if trainer.step % training.checkpoint_every == 0:
                save()
        if trainer.step != saved_at:
            save()
    finally:
        if log is not None:
            log.close()
        ranking.close()
    return {
        "status": status,
        "reason": reason,
        "step": trainer.step,
        "seconds": elapsed_before + time.perf_counter() - started,
    }


def _status(run_dir: Path, elapsed: float, max_seconds: float | None) -> str:
    """Whether to go on ("finished" once the steps are done) or why not. The first worker's answer counts for all."""
    if (run_dir / STOP_FILE).exists():
        return "interrupted"
    return "time" if max_seconds is not None and elapsed >= max_seconds else "finished"


def _report(state: dict[str, Any], trainer: Any, run_dir: Path, keep: int) -> None:
    """Writes the checkpoint on the first worker and tells Ray Train of it; every worker has to call this."""
    import ray.train
    from ray.train import Checkpoint, CheckpointUploadMode

    from drpo.training import collective
    from drpo.training.checkpoint import publish_adapter, write_checkpoint

    checkpoint = None
    if collective.rank() == 0:
        path = write_checkpoint(run_dir / "checkpoints", state | {"step": trainer.step}, trainer.generator, keep=keep)
        publish_adapter(trainer.generator, run_dir / "adapter")
        checkpoint = Checkpoint.from_directory(str(path))
    ray.train.report(
        {"step": trainer.step}, checkpoint=checkpoint, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD
    )
