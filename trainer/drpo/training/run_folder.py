"""The folder of a run: create it, find it, write and read its config.

runs/NAME/config.yaml      all settings of the run
runs/NAME/metrics.jsonl    one line per step
runs/NAME/checkpoints/     see `drpo.training.checkpoint`
runs/NAME/adapter/         the newest adapter, in the format of diffusers; with `lora: null` the U-Net in unet/
runs/NAME/adapter-ema/     the averaged one, with `training.ema`
runs/NAME/adapter-best/    that of the best evaluation, with `training.keep_best`
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import yaml

from drpo.config import Config, read_settings_file, runs_folder, salvage_config
from drpo.errors import ConfigError, ModelLoadError
from drpo.training.files import storing, write_text
from drpo.training.version import PROJECT_VERSION, RUN_FORMAT, check_format

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
COMPARISON_FILE = "evaluation.json"
SUMMARY_FILE = "summary.json"
CHECKPOINTS = "checkpoints"
ADAPTER = "adapter"
ADAPTER_EMA = "adapter-ema"
ADAPTER_BEST = "adapter-best"
UNET = "unet"

_SECTIONS = {"preset", "lora", "objective", "rewards"}
"""What the config of a run has, among others, and that of another program has not."""

_WRITTEN_BY = re.compile(r"^# drpo (\S+), format (\d+)$", re.MULTILINE)
"""The first line of a config.yaml. A comment, so that the file is also a preset: `drpo train --preset config.yaml`."""


def create_run(config: Config) -> Path:
    """Creates the folder of a new run, FOLDER/NAME, and writes its config.

    Returns:
        The absolute path of the folder.

    Raises:
        ConfigError: a run with that name exists.
        StorageError: the folder cannot be written.
    """
    name = config.run.name or f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = config.run.folder.expanduser().resolve()
    run_dir, number = folder / name, 2
    while not _make_folder(run_dir):
        if config.run.name:
            raise ConfigError(
                f"run.name: {run_dir} exists; choose another name, or continue that run with --resume {run_dir}"
            )
        run_dir, number = folder / f"{name}-{number}", number + 1
    write_config(config, run_dir)
    return run_dir


def _make_folder(path: Path) -> bool:
    """Makes a folder, unless something of that name exists: of two starts at once, one gets it."""
    with storing(path):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            return False
    return True


def write_config(config: Config, run_dir: Path) -> None:
    """Writes all settings of a run into its folder."""
    header = f"# drpo {PROJECT_VERSION}, format {RUN_FORMAT}\n"
    write_text(run_dir / CONFIG_FILE, header + config.to_yaml())


def read_config(run_dir: Path) -> Config:
    """The config of an existing run.

    Raises:
        ConfigError: there is no run in that folder, its config is damaged, or a newer version wrote it.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{run_dir} is not a run: it has no {CONFIG_FILE}")
    sections = read_settings_file(path)
    written_by = _WRITTEN_BY.search(path.read_text(encoding="utf-8"))
    if written_by:
        check_format(path, written_by[1], int(written_by[2]))
    config, problems = salvage_config(sections)
    if not problems and not _SECTIONS.issubset(sections):
        raise ConfigError(
            f"{run_dir} is not a run: {path} has not all sections that a run writes. If it is a preset, start a run "
            f"with --preset {path}"
        )
    if problems:
        version = written_by[1] if written_by else "an earlier version"
        versions = "" if version == PROJECT_VERSION else f" (written by drpo: {version}; this is {PROJECT_VERSION})"
        raise ConfigError("\n".join(f"{path}: {problem.message}{versions}" for problem in problems))
    return config


def find_run(path: Path) -> Path | None:
    """The folder of the run that an adapter or a checkpoint belongs to; None if it belongs to none.

    Only the places where a run keeps them count: RUN, RUN/adapter and RUN/adapter-..., RUN/checkpoints/STEP,
    RUN/checkpoints/STEP/adapter, and the folder unet in an adapter's.
    """
    folder = path.resolve()
    if folder.is_file():
        folder = folder.parent
    if folder.name == UNET and _is_adapter(folder.parent):
        folder = folder.parent
    if _is_adapter(folder):
        folder = folder.parent
    if folder.parent.name == CHECKPOINTS:
        folder = folder.parent.parent
    return folder if is_run(folder) else None


def locate_adapter(path: Path) -> Path:
    """The absolute path of an adapter in a file or folder, see `drpo.generators.find_adapter`, or of that of a run.

    A run is given as everywhere: its folder, or its name in the folder of all runs.

    Raises:
        ConfigError: there is none, or there are several.
    """
    from drpo.generators import find_adapter

    try:
        file = find_adapter(path) or find_adapter(path / ADAPTER) or find_adapter(runs_folder() / path / ADAPTER)
    except ModelLoadError as error:
        raise ConfigError(str(error)) from error
    if file is None:
        raise ConfigError(
            f"there is neither a LoRA adapter nor a U-Net in {path}; give a .safetensors file, a folder with one or "
            f"with unet/, or a run: its folder, or its name under {runs_folder()}/"
        )
    return file.resolve()


def _is_adapter(folder: Path) -> bool:
    return folder.name == ADAPTER or folder.name.startswith(f"{ADAPTER}-")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: its config.yaml has the sections of our configs, not somebody else's."""
    try:
        settings = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return False
    return isinstance(settings, dict) and _SECTIONS.issubset(settings)
