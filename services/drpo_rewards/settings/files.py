"""Files with sections: every mistake is named with the file, and with the line where it has one."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel

from drpo_rewards.errors import ConfigError
from drpo_rewards.reading import read_at_most, why_unreadable
from drpo_rewards.settings.values import is_section, keep_text, without_none
from drpo_rewards.settings.yaml_text import SettingsLoader

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MERGE = "tag:yaml.org,2002:merge"
# Of keys whose lines are noted, because aliases can make a small file huge.
MOST_LEVELS, MOST_KEYS = 20, 100_000
MOST_BYTES = 10_000_000  # of a file with settings

Key = tuple[str | int, ...]
"""The way to an entry, for example ("rewards", "geneval", "num_cpus")."""


@dataclass(frozen=True)
class Settings:
    """What stands in a YAML text with sections.

    Attributes:
        name: names the text in errors, usually its path.
        sections: its content; empty if there is none.
        lines: the line of every key and list item, counted from 1.
    """

    name: str
    sections: dict[str, Any]
    lines: dict[Key, int]

    def locate(self, key: Sequence[str | int]) -> str:
        """Return `FILE:LINE` of a key, or of the innermost section around it that the file has."""
        for length in range(len(key), 0, -1):
            if tuple(key[:length]) in self.lines:
                return f"{self.name}:{self.lines[tuple(key[:length])]}"
        return self.name


def read_text(path: Path, name: str | None = None) -> str:
    """Read a UTF-8 file, with or without a byte-order mark.

    Args:
        path: the file.
        name: names it in errors; by default its path.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    name = name or str(path)
    try:
        content = read_at_most(path, MOST_BYTES)
    except IsADirectoryError:
        raise ConfigError(f"{name} is a folder; give a file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte, or too large
        raise ConfigError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None
    if content.startswith(UTF_16):
        raise ConfigError(f"{name}:1: is not UTF-8 text but UTF-16; save the file as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: is not UTF-8 text; save the file as UTF-8") from None


def parse_settings(text: str, name: str, model: type[BaseModel]) -> Settings:
    """Parse a YAML text with sections. Unknown keys are left to pydantic.

    Args:
        text: the text.
        name: names it in errors.
        model: the settings that it may have; their types say which values are text.

    Raises:
        ConfigError: the text is not YAML, or holds something else than sections.
    """
    lines: dict[Key, int] = {}
    try:
        loader = SettingsLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _number_lines(node, (), lines)  # before merge keys (<<) are resolved
        values = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise ConfigError(f"{where}: is not valid YAML: {_explain(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: YAML does not allow the character {chr(error.character)!r}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested a thousand deep
        raise ConfigError(f"{name}: cannot be read as YAML: {why_unreadable(error)}") from None
    if values is None:
        return Settings(name, {}, {})
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{name} holds {_name_kind(values)}, not sections such as `{_name_section(model)}:`")
    keep_text(values, node, model)
    return Settings(name, values, lines)


def _number_lines(node: yaml.Node, key: Key, lines: dict[Key, int]) -> None:
    """Note the line of every key below a node. A section's own keys hide those that it merges (<<)."""
    if len(key) >= MOST_LEVELS or len(lines) >= MOST_KEYS:
        return
    if isinstance(node, yaml.MappingNode):
        for child, value in sorted(node.value, key=lambda entry: entry[0].tag == MERGE):
            if child.tag == MERGE:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    _number_lines(merged, key, lines)
            else:
                lines.setdefault((*key, child.value), child.start_mark.line + 1)
                _number_lines(value, (*key, child.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines.setdefault((*key, index), value.start_mark.line + 1)
            _number_lines(value, (*key, index), lines)


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it cannot be parsed"
    return f"{problem}; YAML indents with spaces, not tabs" if "'\\t'" in problem else problem


def _name_section(model: type[BaseModel]) -> str:
    """Return the first key that holds others."""
    kinds = {name: without_none(field.annotation)[0] for name, field in model.model_fields.items()}
    return next(name for name, kind in kinds.items() if is_section(kind) or get_origin(kind) is dict)


def _name_kind(data: Any) -> str:
    return {list: "a list", str: "a text", bool: "true or false"}.get(type(data), f"a {type(data).__name__}")
