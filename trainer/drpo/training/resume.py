"""Continue a run: which settings may change, and from which checkpoint it goes on.

Every check here comes before the first write, so a run that cannot go on stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drpo.config import Config
from drpo.errors import ConfigError
from drpo.training.checkpoint import find_newest_checkpoint, step_of
from drpo.training.evaluations import EVALUATIONS_FILE, judge_again, read_evaluations
from drpo.training.run_folder import ADAPTER, CHECKPOINTS
from drpo.training.version import PROJECT_VERSION

CHANGEABLE = {
    "run": {"ray_address"},
    "model": {"device", "gradient_checkpointing"},
    "rewards": {"service", "address", "api_key_env", "timeout_s", "retries", "details"},
    "optimizer": {"lr", "max_grad_norm", "schedule", "warmup_steps", "schedule_steps"},
    "training": {
        "steps", "max_seconds", "pipeline", "groups_in_flight", "chunk_size", "memory", "decode_chunk",
        "max_failed_groups", "num_workers", "threads_per_worker", "use_gpu", "resources_per_worker", "max_failures",
        "checkpoint_every", "keep_checkpoints", "keep_best", "stop_if",
    },
    "offline": {"cache", "batch_size"},
    "trackers": {"use", "project", "options"},
    "evaluation": {
        "enabled", "split", "path", "images_per_prompt", "prompts_per_task", "batch_size", "seed", "reward", "metric",
        "rewards", "every", "every_prompts_per_task", "grid",
    },
}  # fmt: skip
"""The settings that may change when a run goes on: how long, how fast and where it trains, and how it is evaluated.

All others decide what is trained, and the steps so far depend on them.
"""

_NOT_IN_CHECKPOINTS = {
    "preset",
    "run.name",
    "run.folder",
    "model.generator",
    "lora.adapter",
    "features.path",
    "prompts.path",
    "offline.path",
}
"""Names and places. Folders may be moved between two starts, and the paths in config.yaml corrected."""


def fixed_settings(config: Config) -> dict[str, Any]:
    """The settings that a run cannot change, by their dotted keys, as they are kept in its checkpoints."""
    return {key: value for key, value in _flatten(config) if key not in _NOT_IN_CHECKPOINTS}


def find_changes(earlier: Config, config: Config, run_dir: Path) -> dict[str, str]:
    """The settings that differ from those of the run and may not change: for each key both values in words.

    Args:
        earlier: the config of the run.
        config: the config with which it shall go on; like the other, with absolute paths.
        run_dir: the run's folder.
    """
    before, now = dict(_flatten(earlier)), dict(_flatten(config))
    now["run.name"] = before["run.name"] if now["run.name"] == run_dir.name else now["run.name"]
    now["run.folder"] = before["run.folder"] if Path(now["run.folder"]) == run_dir.parent else now["run.folder"]
    return _compare(before, now)


def find_start(config: Config, run_dir: Path) -> list[str]:
    """Checks that a run can go on from its newest whole checkpoint.

    Returns:
        What the user should know about it, one line each: checkpoints that are left out, another version.

    Raises:
        ConfigError: the checkpoint is of other settings than `config`, or of a newer version of the project; or
            `training.stop_if` has ended the run there; or it is at a later step than `training.steps`; or the run's
            checkpoints were removed.
        ModelLoadError: the run has checkpoints, but none is whole.
    """
    newest = find_newest_checkpoint(run_dir / CHECKPOINTS)
    if newest.path is None and (run_dir / ADAPTER).exists():  # only a checkpoint is followed by an adapter
        raise ConfigError(
            f"{run_dir} has an adapter but none of its checkpoints any more, and a run goes on from a checkpoint only. "
            f"Restore one from a copy, or start a new run, which can start from {run_dir / ADAPTER} with --adapter"
        )
    if newest.path is None:
        return ["the run has no checkpoint yet, so it starts at step 0"]
    if newest.manifest is not None:
        before, now = newest.manifest.settings, fixed_settings(config)
        known = before.keys() & now.keys()  # another version may have more settings, or fewer
        changes = _compare({key: before[key] for key in known}, {key: now[key] for key in known})
        if changes:
            raise ConfigError(
                f"the checkpoint {newest.path} cannot go on with other settings, because its steps so far depend on "
                f"them. {'; '.join(changes.values())}. Leave them out, or start a new run"
            )
    step = step_of(newest.path)
    if config.training.steps < step:
        raise ConfigError(
            f"training.steps is {config.training.steps}, but {run_dir} has made {step} steps already: give as many or "
            "more, or leave it out"
        )
    _refuse_ended(config, run_dir, step)
    notes = [f"left out a damaged checkpoint: {problem}" for problem in newest.left_out]
    if newest.left_out:
        notes.append(f"going on from step {step}, the newest whole checkpoint")
    version = newest.manifest.version if newest.manifest is not None else "an earlier version"
    if version != PROJECT_VERSION:
        notes.append(f"the checkpoint was written by drpo: {version}; going on with it in drpo {PROJECT_VERSION}")
    return notes


def _refuse_ended(config: Config, run_dir: Path, step: int) -> None:
    """Refuses to go on from a step whose evaluation ends the run."""
    why = judge_again(read_evaluations(run_dir / EVALUATIONS_FILE), step, config.training.stop_if)
    if why:
        raise ConfigError(
            f"the run {run_dir} is at step {step}, whose evaluation ends it: {why}. To train on, give another limit, "
            "or none with --training.stop_if null"
        )


def _flatten(config: Config) -> Iterator[tuple[str, Any]]:
    """All settings by their dotted keys, but those that may change."""
    for section, values in config.model_dump(mode="json").items():
        if not isinstance(values, dict):
            yield section, values
            continue
        for key, value in values.items():
            if key not in CHANGEABLE.get(section, ()):
                yield f"{section}.{key}", value


def _compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: f"{key} is {before.get(key)}, not {now.get(key)}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    }
