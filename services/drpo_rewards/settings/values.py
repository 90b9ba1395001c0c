"""Text is text: in a file, a setting of type text takes what was typed, and only the others are parsed.

`name: 007` means the name "007", not the number 7. The type of the setting decides.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel


def keep_text(values: dict[str, Any], node: yaml.MappingNode, model: type[BaseModel]) -> None:
    """Give text settings of a parsed file the text that stands in the file, and make sections without keys empty.

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
        if is_section(kind) or get_origin(kind) is dict:
            if values[key] is None:  # `lora: null` is a choice, but `lora:` with nothing but comments below it is not
                values[key] = None if optional and value_node.value else {}
            elif isinstance(value_node, yaml.MappingNode):
                _keep_text_in(values[key], value_node, kind)
        elif is_text(kind) and _is_plain(value_node):
            values[key] = value_node.value
        elif is_text_list(kind) and isinstance(value_node, yaml.SequenceNode):
            values[key] = [
                item.value if _is_plain(item) else value
                for item, value in zip(value_node.value, values[key], strict=True)
            ]


def _keep_text_in(values: dict[str, Any], node: yaml.MappingNode, kind: Any) -> None:
    """Keep the text in a section, or in each of the sections that have names."""
    if is_section(kind):
        keep_text(values, node, kind)
    elif is_section(inner := get_args(kind)[1]):
        for key_node, value_node in node.value:
            if isinstance(value_node, yaml.MappingNode) and isinstance(values.get(key_node.value), dict):
                keep_text(values[key_node.value], value_node, inner)


def without_none(annotation: Any) -> tuple[Any, bool]:
    """Return the type without `| None` and without `Annotated`, and whether it allows None."""
    if get_origin(annotation) is Annotated:
        return without_none(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, annotation is Any
    others = [part for part in get_args(annotation) if part is not type(None)]
    return (without_none(others[0])[0] if len(others) == 1 else Any), len(others) < len(get_args(annotation))


def is_section(kind: Any) -> bool:
    """Return whether a type is that of a section."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def is_text(kind: Any) -> bool:
    """Return whether a setting of this type is text: also a path, and a choice of words."""
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return kind in (str, Path)


def is_text_list(kind: Any) -> bool:
    """Return whether a setting of this type is a list of texts."""
    return get_origin(kind) in (tuple, list) and without_none(get_args(kind)[0])[0] is str


def _is_plain(node: yaml.Node) -> bool:
    """Return whether a node is a scalar without quotes that is not null."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and not node.tag.endswith(":null")
