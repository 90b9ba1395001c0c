"""How text becomes the value of a setting: a setting of type text takes what was typed, lists and the like are YAML.

The type of the setting decides, in one place, for the command line (`read_value`) and for files (`keep_text`). So
`--run.name 007` and `name: 007` in a file both mean the name "007", not the number 7.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from drpo.config.yaml_text import SettingsLoader
from drpo.errors import ConfigError

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
        ConfigError: the text is not YAML where YAML is expected.
    """
    kind, optional = without_none(_annotation_of(model, key))
    if optional and text == NULL:
        return None
    if _is_text(kind) or kind in (int, float, bool):  # pydantic reads numbers
        return text
    if _is_text_list(kind) and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return yaml.load(text, Loader=yaml.BaseLoader if _is_text_list(kind) else SettingsLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        reason = f": {error.problem}" if isinstance(error, yaml.MarkedYAMLError) and error.problem else ""
        raise ConfigError(f"{key}: {text!r} is not a YAML value{reason}") from error


def keep_text(values: dict[str, Any], node: yaml.MappingNode, model: type[BaseModel]) -> None:
    """Gives text settings of a parsed file the text that stands in the file, and makes sections without keys empty.

    Args:
        values: what YAML made of `node`; changed in place.
        node: the parsed section.
        model: the settings of the section.
    """
    for key_node, value_node in node.value:
        key = key_node.value
        if key not in values:
            continue
        field = model.model_fields.get(key)
        kind, optional = without_none(field.annotation if field is not None else Any)
        if _is_section(kind):
            if values[key] is None:  # `lora: null` is a choice, but `lora:` with nothing but comments below it is not
                values[key] = None if optional and value_node.value else {}
            elif isinstance(value_node, yaml.MappingNode):
                keep_text(values[key], value_node, kind)
        elif _is_text(kind) and _is_plain(value_node):
            values[key] = value_node.value
        elif _is_text_list(kind) and isinstance(value_node, yaml.SequenceNode):
            values[key] = [
                item.value if _is_plain(item) else value
                for item, value in zip(value_node.value, values[key], strict=True)
            ]


def _annotation_of(model: type[BaseModel], key: str) -> Any:
    """The type of a setting; Any if it is not known, as inside `features.options` and `objective`."""
    annotation: Any = model
    for part in key.split("."):
        kind, _ = without_none(annotation)
        if _is_section(kind) and part in kind.model_fields:
            annotation = kind.model_fields[part].annotation
        elif get_origin(kind) is dict:
            annotation = get_args(kind)[1]
        else:
            return Any
    return annotation


def without_none(annotation: Any) -> tuple[Any, bool]:
    """The type without `| None`, and whether it allows None."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, annotation is Any
    others = [part for part in get_args(annotation) if part is not type(None)]
    return (others[0] if len(others) == 1 else Any), len(others) < len(get_args(annotation))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return kind in (str, Path)


def _is_text_list(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list) and get_args(kind)[0] is str


def _is_plain(node: yaml.Node) -> bool:
    """Whether a node is a scalar without quotes that is not null."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and not node.tag.endswith(":null")
