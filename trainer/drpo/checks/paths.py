"""Make the paths in a config absolute, because the workers run in other folders."""

from __future__ import annotations

import os
from pathlib import Path

from drpo.config import Config, runs_folder
from drpo.shapes.embedded import is_embedded


def make_paths_absolute(config: Config) -> Config:
    """A copy of a config with absolute paths. Names and hub ids, of which there is no file, stay unchanged."""
    config = config.model_copy(deep=True)
    config.run.folder = Path(os.path.abspath(os.path.expanduser(config.run.folder)))
    config.model.generator = _absolute(config.model.generator)
    if config.model.vae:
        config.model.vae = _absolute(config.model.vae)
    if config.model.unet:
        config.model.unet = _absolute_or_run(config.model.unet)
    if config.lora is not None and config.lora.adapter:
        config.lora.adapter = _absolute_or_run(config.lora.adapter)
    if config.features.path:
        config.features.path = _absolute(config.features.path)
    if config.rewards.service:
        config.rewards.service = _absolute(config.rewards.service)
    reward = config.objective.settings.get("reward")
    if isinstance(reward, dict) and isinstance(reward.get("options"), dict):
        reward["options"] = {
            key: _absolute(value) if isinstance(value, str) else value for key, value in reward["options"].items()
        }
    for section in (config.prompts, config.evaluation):
        if section.path:
            section.path = _absolute(section.path)
    if config.offline is not None and config.offline.path:
        config.offline.path = _absolute(config.offline.path)
    if config.offline is not None and config.offline.cache is not None:
        config.offline.cache = Path(os.path.abspath(os.path.expanduser(config.offline.cache)))
    return config


def _absolute_or_run(path: str) -> str:
    """The absolute path of what is there, or of the run with that name."""
    named = runs_folder() / path
    return _absolute(str(named) if not os.path.exists(os.path.expanduser(path)) and named.exists() else path)


def _absolute(path: str) -> str:
    if is_embedded(path):  # even if there is a folder of that name
        return path
    expanded = os.path.expanduser(path)
    return os.path.abspath(expanded) if os.path.exists(expanded) else path
