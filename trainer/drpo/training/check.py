"""Everything that can be wrong with a run and can be known before it starts.

Ray Train restarts its workers after any error, a mistake in the config included, so mistakes are looked for here, in
the driver.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from drpo.config import Config, nearest
from drpo.errors import ConfigError, DrpoError


def check_config(config: Config) -> Config:
    """The config with absolute paths (workers run in folders of their own), once its names and files were found.

    Raises:
        ConfigError: something is missing or contradicts something else; each problem is a line.
    """
    config = config.model_copy(deep=True)
    _absolute(config)
    problems = [*_check_objective(config), *_check_features(config), *_check_prompts(config), *_check_devices(config)]
    problems += _check_key(config)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _absolute(config: Config) -> None:
    config.run.folder = config.run.folder.expanduser().resolve()
    config.model.generator = _existing(config.model.generator)
    if config.features.path:
        config.features.path = _existing(config.features.path)
    if config.rewards.service:
        config.rewards.service = _existing(config.rewards.service)
    for section in (config.prompts, config.evaluation):
        if section.path:
            section.path = str(Path(section.path).expanduser().resolve())


def _existing(path: str) -> str:
    """A path that exists, made absolute; anything else is a name or a hub id and stays as it is."""
    if path == "shapes":  # the embedded one, also where a folder of that name lies about
        return path
    found = Path(path).expanduser()
    return str(found.resolve()) if found.exists() else path


def _check_objective(config: Config) -> list[str]:
    from drpo.method.objectives import load_objective

    name, settings = config.objective.name, config.objective.settings
    try:
        load_objective(name, settings)
    except ValidationError as error:
        default: Any = load_objective(name)
        known = list(type(default.settings).model_fields)
        problems = []
        for one in error.errors():
            key = ".".join(str(part) for part in one["loc"])
            if one["type"] == "extra_forbidden":
                problems.append(f"there is no setting objective.{key}{nearest(key, known)}")
            else:
                problems.append(f"objective.{key} = {one['input']!r}: {one['msg']}")
        return problems
    except DrpoError as error:
        return [f"objective: {error}"]
    return []


def _check_features(config: Config) -> list[str]:
    from drpo.method.features import FEATURE_MAPS

    settings = config.features
    if settings.name not in FEATURE_MAPS:
        return [f"features.name: there is no feature map {settings.name!r}{nearest(settings.name, list(FEATURE_MAPS))}"]
    if (
        settings.path
        and settings.path != "shapes"
        and settings.name != "raw_latent"
        and not Path(settings.path).exists()
    ):
        return [f"features.path: there is no folder {settings.path}"]
    return []


def _check_prompts(config: Config) -> list[str]:
    from drpo.data.prompts import load_prompts

    try:
        load_prompts(config.prompts)
    except DrpoError as error:
        return [str(error)]
    return []


def _check_devices(config: Config) -> list[str]:
    training, model = config.training, config.model
    if training.use_gpu and model.device == "cpu":
        return ["training.use_gpu asks for a GPU for each worker, but model.device is cpu"]
    if model.dtype == "float16" and not training.use_gpu:
        return ["model.dtype: float16 needs a GPU (training.use_gpu: true); on a CPU use float32"]
    return []


def _check_key(config: Config) -> list[str]:
    name = config.rewards.api_key_env
    return [f"rewards.api_key_env names ${name}, which is not set"] if name and not os.environ.get(name) else []
