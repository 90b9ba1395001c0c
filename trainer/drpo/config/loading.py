"""Read a config from a preset, apply overrides, and report mistakes in plain words."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drpo.config.config import Config, MisfitError, known_keys
from drpo.config.files import parse_sections, read_settings_file
from drpo.config.sections import FeaturesConfig, ObjectiveConfig
from drpo.config.site import merge_sections, site_settings
from drpo.config.values import NULL, read_value
from drpo.errors import ConfigError
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.settings.values import without_none

_NAMED = (FeaturesConfig, ObjectiveConfig)
"""The sections whose keys depend on their `name`."""


def preset_names() -> list[str]:
    """The presets that the package contains."""
    return sorted(file.name[:-5] for file in resources.files("drpo.presets").iterdir() if file.name.endswith(".yaml"))


class Problem(NamedTuple):
    """What is wrong with a setting: its dotted key ("" if several are concerned), and a message that names it."""

    key: str
    message: str


def load_config(preset: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a preset, applies the site's settings (`drpo.config.site`) and then the overrides, and checks everything.

    Args:
        preset: the name of a preset, or the path of a YAML file.
        overrides: each is "dotted.key=value"; `drpo.config.values` says how the value is read.

    Raises:
        ConfigError: there is no such preset, a key does not exist (the message suggests the nearest one), or a value
            is out of range.
    """
    values = read_preset(preset)
    return _parse(values, override(values, overrides))


def read_preset(preset: str | Path) -> dict[str, Any]:
    """The settings of a preset and of the site, not yet checked.

    A preset may name another one that it `extends`; it then has only what is different.

    Raises:
        ConfigError: there is no such preset, or one of the files cannot be read.
    """
    values = _read_layers(str(preset), ())
    values.setdefault("preset", Path(preset).stem)
    merge_sections(values, site_settings())
    return values


def _read_layers(name: str, derived: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a preset over those of the preset that it extends.

    Args:
        name: a preset or a YAML file.
        derived: the presets that extend it.
    """
    if name in preset_names():
        values = parse_sections(resources.files("drpo.presets").joinpath(f"{name}.yaml").read_text("utf-8"), name)
    elif name.endswith((".yaml", ".yml")) or "/" in name or os.path.isdir(name):
        values = read_settings_file(Path(name).expanduser())
    else:
        raise ConfigError(
            f"there is no preset {name!r}{did_you_mean(name, preset_names())}. Presets: {', '.join(preset_names())}; "
            "or give a YAML file"
        )
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{name}: extends = {base!r} must be the name of a preset, or a YAML file")
    if base not in preset_names():
        base = str(Path(name).expanduser().parent / Path(base).expanduser())
    if base in (*derived, name):
        raise ConfigError(f"{name}: extends a preset that extends it: {' -> '.join((*derived, name, base))}")
    settings = _read_layers(base, (*derived, name))
    settings.pop("preset", None)  # the name of the other
    _lay_over(settings, values, Config)
    return settings


def _lay_over(base: dict[str, Any], values: Mapping[str, Any], model: Any) -> None:
    """Overwrites the settings in `base` section by section. What is no section, such as weights, is replaced whole.

    A section with another `name`, such as that of another feature map, is replaced too: its other keys do not fit.
    """
    for key, value in values.items():
        kind, _ = without_none(model.model_fields[key].annotation if key in model.model_fields else Any)
        earlier: Any = base.get(key)
        both = hasattr(kind, "model_fields") and isinstance(value, dict) and isinstance(earlier, dict)
        if both and (kind not in _NAMED or value.get("name", earlier.get("name")) == earlier.get("name")):
            _lay_over(earlier, value, kind)
        else:
            base[key] = value


def parse_config(values: Mapping[str, Any]) -> Config:
    """Checks a whole config, given as nested mappings.

    Raises:
        ConfigError: lists all mistakes, one per line.
    """
    return _parse(values, [])


def _parse(values: Mapping[str, Any], problems: Sequence[Problem]) -> Config:
    config, others = salvage_config(values)
    if problems or others:
        raise ConfigError("\n".join(problem.message for problem in [*problems, *others]))
    return config


def salvage_config(values: Mapping[str, Any]) -> tuple[Config, list[Problem]]:
    """The config with defaults in place of the settings that are wrong, and what is wrong with these.

    So a check of the rest can go on, and all mistakes are told together.
    """
    rest: dict[str, Any] = copy.deepcopy(dict(values))
    problems: list[Problem] = []
    while True:
        try:
            return Config.model_validate(rest), problems
        except ValidationError as error:
            for details in list_errors(error):
                location: Sequence[int | str] = details["loc"][:2]
                misfit, is_told = details.get("ctx", {}).get("error"), False
                if isinstance(misfit, MisfitError):
                    location = misfit.key.split(".")
                    is_told = any(problem.key in misfit.others for problem in problems)  # now a default, which misfits
                if not is_told:
                    problems.append(Problem(".".join(map(str, details["loc"])), describe_error(details)))
                rest = _without(rest, location)


def _without(values: dict[str, Any], location: Sequence[int | str]) -> dict[str, Any]:
    """The values without a setting or a section; with a section that is not there, no values."""
    section, key = (*map(str, location), "", "")[:2]
    if section not in values:
        return {}
    rest = {name: value for name, value in values.items() if name != section}
    inner = values[section]
    if not isinstance(inner, dict) or key not in inner:
        return rest
    return {**rest, section: {name: value for name, value in inner.items() if name != key}}


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """A copy of a config with the overrides "dotted.key=value" applied and everything checked again."""
    values = config.model_dump(mode="json")
    return _parse(values, override(values, overrides))


def override(values: dict[str, Any], overrides: Sequence[str]) -> list[Problem]:
    """Applies the overrides "dotted.key=value" to the values, in place, without a check of the result.

    Returns:
        The overrides that are left out, because they have no value, go through a value, are not YAML, or are in a
        section that another one of them removes.
    """
    problems = []
    removed = {text.removesuffix(f"={NULL}") for text in overrides if text.endswith(f"={NULL}")}
    for text in overrides:
        key, equals, typed = text.partition("=")
        section = key.rpartition(".")[0]
        try:
            if not equals:
                raise ConfigError(f"the override {text!r} has no value: write {key}=VALUE")
            if section in removed:
                raise ConfigError(f"{key} cannot be set with {section}: null; leave one of them out")
            set_value(values, key, read_value(Config, key, typed))
        except ConfigError as error:
            problems.append(Problem(key, str(error)))
    return problems


def set_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key, in place.

    Raises:
        ConfigError: a part of the key is a value, not a section.
    """
    *sections, last = key.split(".")
    target = values
    for section in sections:
        inner = target.get(section)
        if inner is None:
            inner = target[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section} is a value, not a section")
        target = inner
    target[last] = value


def list_errors(error: ValidationError) -> list[ErrorDetails]:
    """Pydantic's errors without those that follow from others: a list of wrong items is not also too short."""
    found = error.errors()
    return [
        one
        for one in found
        if one["type"] != "too_short"
        or not any(other["loc"][:-1] == one["loc"] and other["loc"] != one["loc"] for other in found)
    ]


def describe_error(error: ErrorDetails, section: str = "", settings: type[BaseModel] | None = None) -> str:
    """One of pydantic's errors as one line of text.

    Args:
        error: the error.
        section: the section of the config that is checked; "": the whole config.
        settings: the settings that this section has, if the objective or the feature map defines them.
    """
    key = ".".join(str(part) for part in ([section] if section else []) + list(error["loc"]))
    if error["type"] == "extra_forbidden":
        if settings is not None:
            return f"there is no setting {key}{did_you_mean(key.rpartition('.')[2], settings.model_fields)}"
        return f"there is no setting {key}{_suggest(key)}"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
    typed = repr(error["input"])
    typed = typed if len(typed) <= 100 else f"{typed[:90]}..."
    return f"{key} = {typed}: {error['msg'][0].lower()}{error['msg'][1:]}{_range_of(error)}"


def _range_of(error: ErrorDetails) -> str:
    """The range of a number that could not be read as one, such as "; it must be at least 1"."""
    if not error["type"].startswith(("int_", "float_", "finite_")):
        return ""
    section, _, key = ".".join(map(str, error["loc"])).partition(".")
    model, _ = without_none(Config.model_fields[section].annotation if section in Config.model_fields else None)
    field = getattr(model, "model_fields", {}).get(key)
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = [
        f"{word} {getattr(limit, name)}"
        for limit in (field.metadata if field is not None else ())
        for name, word in words.items()
        if hasattr(limit, name)
    ]
    return f"; it must be {' and '.join(limits)}" if limits else ""


def _suggest(key: str) -> str:
    """Suggests a section, a similar key, that name in another section, or the section's keys."""
    section, _, last = key.rpartition(".")
    keys = list(known_keys())
    if key in keys:  # a dotted key in a file
        return f"; in a file, write {last} below {section}:"
    elsewhere = [known for known in keys if did_you_mean(last, [known.rpartition(".")[2]], cutoff=0.8)]
    siblings = [known.rpartition(".")[2] for known in keys if section and known.rpartition(".")[0] == section]
    return (
        (did_you_mean(key, Config.model_fields, cutoff=0.7) if not section else "")
        or did_you_mean(key, keys, cutoff=0.7)
        or (f"; did you mean {elsewhere[0]}?" if elsewhere else "")
        or (f"; {section} has {', '.join(siblings)}" if siblings else "")
    )
