"""How text becomes the value of a setting: a setting of type text takes what was typed, lists and the like are YAML.

The type of the setting decides, for the command line (`read_value`) as for files (`drpo_rewards.settings.values`). So
`--run.name 007` and `name: 007` in a file both mean the name "007", not the number 7.
"""

from __future__ import annotations

from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from drpo.errors import ConfigError
from drpo_rewards.settings.values import is_section, is_text, is_text_list, without_none
from drpo_rewards.settings.yaml_text import SettingsLoader

NULL = "null"
"""What stands for "no value" where a setting allows it. A file of that name is written ./null."""


def read_value(model: type[BaseModel], key: str, text: str) -> Any:
    """The value of a setting from what was typed for it on the command line.

    Args:
        model: the whole config.
        key: the setting, such as "training.steps".
        text: what was typed. Text and numbers are taken as they are, and `null` is None if the setting allows it. A
            list of texts is `a,b` or `[a, "b, c"]`. Everything else is YAML, and so are settings of unknown type.

    Raises:
        ConfigError: the text is empty where text is expected, or not YAML where YAML is expected.
    """
    kind, optional = without_none(_annotation_of(model, key))
    if optional and text == NULL:
        return None
    if is_text(kind) and not text.strip():  # such as an unset variable of a shell; as a path it would be this folder
        fix = f"leave it out, or write {NULL}" if optional else "leave it out"
        raise ConfigError(f"{key}: the value is empty; {fix}")
    if is_text(kind) or kind in (int, float, bool):  # pydantic reads numbers
        return text
    if is_text_list(kind) and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return yaml.load(text, Loader=yaml.BaseLoader if is_text_list(kind) else SettingsLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        reason = f": {error.problem}" if isinstance(error, yaml.MarkedYAMLError) and error.problem else ""
        raise ConfigError(f"{key}: {text!r} is not a YAML value{reason}") from error


def _annotation_of(model: type[BaseModel], key: str) -> Any:
    """The type of a setting; Any if it is not known, as inside `features.options` and `objective`."""
    annotation: Any = model
    for part in key.split("."):
        kind, _ = without_none(annotation)
        if is_section(kind) and part in kind.model_fields:
            annotation = kind.model_fields[part].annotation
        elif get_origin(kind) is dict:
            annotation = get_args(kind)[1]
        else:
            return Any
    return annotation
