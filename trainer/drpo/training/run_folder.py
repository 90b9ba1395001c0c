"""The folder of a run: create it, find it, write and read its config.

runs/NAME/config.yaml      all settings of the run
runs/NAME/metrics.jsonl    one line per step
runs/NAME/checkpoints/     see `drpo.training.checkpoint`
runs/NAME/adapter/         the newest adapter, in the format of diffusers
"""

from __future__ import annotations

import time
from pathlib import Path

from drpo.config import Config, read_settings_file, salvage_config
from drpo.errors import ConfigError

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
ADAPTER = "adapter"


def create_run(config: Config) -> Path:
    """Creates the folder of a new run, FOLDER/NAME, and writes its config.

    Returns:
        The absolute path of the folder.

    Raises:
        ConfigError: a run with that name exists.
    """
    name = config.run.name or f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = config.run.folder.expanduser().resolve()
    run_dir, number = folder / name, 2
    while run_dir.exists():
        if config.run.name:
            raise ConfigError(
                f"run.name: {run_dir} exists; choose another name, or continue that run with --resume {run_dir}"
            )
        run_dir, number = folder / f"{name}-{number}", number + 1
    run_dir.mkdir(parents=True)
    write_config(config, run_dir)
    return run_dir


def write_config(config: Config, run_dir: Path) -> None:
    """Writes all settings of a run into its folder."""
    (run_dir / CONFIG_FILE).write_text(config.to_yaml(), encoding="utf-8")


def read_config(run_dir: Path) -> Config:
    """The config of an existing run.

    Raises:
        ConfigError: there is no run in that folder, or its config cannot be read; the message names the file.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{run_dir} is not a run: it has no {CONFIG_FILE}")
    config, problems = salvage_config(read_settings_file(path))
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem.message}" for problem in problems))
    return config


def find_run(path: Path) -> Path | None:
    """The folder of the run that contains a path, such as an adapter or a checkpoint; None if no run does."""
    path = path.resolve()
    return next((folder for folder in [path, *path.parents][:4] if (folder / CONFIG_FILE).is_file()), None)
