"""The folder of a run: create it, find it, write and read its config.

runs/NAME/config.yaml      all settings of the run
runs/NAME/metrics.jsonl    one line per step
runs/NAME/checkpoints/     see `drpo.training.checkpoint`
runs/NAME/adapter/         the newest adapter, in the format of diffusers
"""

from __future__ import annotations

import time
from pathlib import Path

import yaml

from drpo.config import Config, parse_config
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
    """The folder of the run that an adapter or a checkpoint belongs to; None if it belongs to none.

    Only the places where a run keeps them count: RUN, RUN/adapter, RUN/checkpoints/STEP, RUN/checkpoints/STEP/adapter.
    """
    folder = path.resolve()
    if folder.is_file():
        folder = folder.parent
    if folder.name == ADAPTER or folder.name.startswith(f"{ADAPTER}-"):
        folder = folder.parent
    if folder.parent.name == CHECKPOINTS:
        folder = folder.parent.parent
    return folder if is_run(folder) else None


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: its config.yaml has the sections of our configs, not somebody else's."""
    try:
        settings = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(settings, dict) and {"preset", "lora", "objective", "rewards"} <= settings.keys()
