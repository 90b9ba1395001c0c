"""Read a config from a preset, apply overrides, and report mistakes in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from drpo.config.config import Config, known_keys
from drpo.config.site import merge_sections, read_sections, site_settings
from drpo.errors import ConfigError
from drpo_rewards.api.suggestions import did_you_mean


def preset_names() -> list[str]:
    """The presets that the package contains."""
    return sorted(file.name[:-5] for file in resources.files("drpo.presets").iterdir() if file.name.endswith(".yaml"))


def load_config(preset: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a preset, applies the site's settings (`drpo.config.site`) and then the overrides, and checks everything.

    Args:
        preset: the name of a preset, or the path of a YAML file.
        overrides: each is "dotted.key=value", with the value in YAML.

    Raises:
        ConfigError: there is no such preset, a key does not exist (the message suggests the nearest one), or a value
            is out of range.
    """
    name = str(preset)
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"there is no config file {name}")
        text = path.read_text(encoding="utf-8")
    elif name in preset_names():
        text = resources.files("drpo.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise ConfigError(
            f"there is no preset {name!r}{did_you_mean(name, preset_names())}. Presets: {', '.join(preset_names())}"
        )
    values = read_sections(text, name)
    values.setdefault("preset", Path(name).stem)
    merge_sections(values, site_settings())
    for override in overrides:
        _apply_override(values, override)
    return parse_config(values)


def parse_config(values: Mapping[str, Any]) -> Config:
    """Checks a whole config, given as nested mappings.

    Raises:
        ConfigError: lists all mistakes, one per line.
    """
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(details) for details in error.errors())) from None
    return config


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """A copy of a config with the overrides "dotted.key=value" applied and everything checked again."""
    values = config.model_dump(mode="json")
    for override in overrides:
        _apply_override(values, override)
    return parse_config(values)


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"the override {override!r} has no value: write {key}=VALUE")
    *sections, last = key.split(".")
    target = values
    for section in sections:
        inner = target.get(section)
        if inner is None:
            inner = target[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section} is a value, not a section")
        target = inner
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {text!r} is not a YAML value") from error


def _describe(error: ErrorDetails) -> str:
    """One of pydantic's errors as one line of text."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"there is no setting {key}{_suggest(key)}"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
    return f"{key} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _suggest(key: str) -> str:
    """Suggests a section, a similar key, that name in another section, or the section's keys."""
    section, _, last = key.rpartition(".")
    keys = list(known_keys())
    elsewhere = [known for known in keys if did_you_mean(last, [known.rpartition(".")[2]], cutoff=0.8)]
    siblings = [known.rpartition(".")[2] for known in keys if section and known.rpartition(".")[0] == section]
    return (
        (did_you_mean(key, Config.model_fields, cutoff=0.7) if not section else "")
        or did_you_mean(key, keys, cutoff=0.7)
        or (f"; did you mean {elsewhere[0]}?" if elsewhere else "")
        or (f"; {section} has {', '.join(siblings)}" if siblings else "")
    )
