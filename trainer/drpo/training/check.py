"""Check a config before its run starts: names, files, devices, the API key.

Ray Train restarts its workers after any error, even if the config is wrong. So the driver checks the config first.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from drpo.config import Config
from drpo.data.prompts.check import check_prompts
from drpo.errors import ConfigError, DrpoError
from drpo.shapes.embedded import is_embedded
from drpo_rewards.api.suggestions import did_you_mean


def check_config(config: Config) -> Config:
    """Checks a config, and returns a copy with absolute paths, because the workers run in other folders.

    Raises:
        ConfigError: something is missing or contradictory; the message has one line per problem.
    """
    config = config.model_copy(deep=True)
    _make_paths_absolute(config)
    problems = [*_check_objective(config), *_check_features(config), *check_prompts(config), *_check_devices(config)]
    problems += _check_api_key(config)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _make_paths_absolute(config: Config) -> None:
    config.run.folder = config.run.folder.expanduser().resolve()
    config.model.generator = _absolute_path(config.model.generator)
    if config.features.path:
        config.features.path = _absolute_path(config.features.path)
    if config.rewards.service:
        config.rewards.service = _absolute_path(config.rewards.service)
    for section in (config.prompts, config.evaluation):
        if section.path and (section.source or config.prompts.source) == "hub":
            section.path = _absolute_path(section.path)
        elif section.path:
            section.path = str(Path(section.path).expanduser().resolve())


def _absolute_path(path: str) -> str:
    """An existing path as an absolute one. Anything else is a name or a hub id, and stays unchanged."""
    if is_embedded(path):  # even if there is a folder of that name
        return path
    expanded = Path(path).expanduser()
    return str(expanded.resolve()) if expanded.exists() else path


def _check_objective(config: Config) -> list[str]:
    from drpo.method.objectives import load_objective, objective_class

    name, settings = config.objective.name, config.objective.settings
    try:
        load_objective(name, settings)
    except ValidationError as error:
        known = objective_class(name).settings_class.model_fields
        problems = []
        for details in error.errors():
            key = ".".join(str(part) for part in details["loc"])
            if details["type"] == "extra_forbidden":
                problems.append(f"there is no setting objective.{key}{did_you_mean(key, known)}")
            else:
                problems.append(f"objective.{key} = {details['input']!r}: {details['msg']}")
        return problems
    except DrpoError as error:
        return [f"objective: {error}"]
    return []


def _check_features(config: Config) -> list[str]:
    from drpo.method.features import FEATURE_MAPS

    name, path = config.features.name, config.features.path
    if name not in FEATURE_MAPS:
        return [f"features.name: there is no feature map {name!r}{did_you_mean(name, FEATURE_MAPS)}"]
    if path and not is_embedded(path) and name != "raw_latent" and not Path(path).exists():
        return [f"features.path: there is no folder {path}"]
    return []


def _check_devices(config: Config) -> list[str]:
    training, model = config.training, config.model
    if training.use_gpu and model.device == "cpu":
        return ["training.use_gpu asks for a GPU for each worker, but model.device is cpu"]
    if model.dtype == "float16" and not training.use_gpu:
        return ["model.dtype: float16 needs a GPU (training.use_gpu: true); on a CPU use float32"]
    return []


def _check_api_key(config: Config) -> list[str]:
    name = config.rewards.api_key_env
    return [f"rewards.api_key_env names ${name}, which is not set"] if name and not os.environ.get(name) else []
