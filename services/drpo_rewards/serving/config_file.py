"""Reading of config files: every mistake is named with the file, and with the line where it has one."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from drpo_rewards.errors import ConfigError

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Key = tuple[str | int, ...]
"""The way to an entry, for example ("rewards", "geneval", "num_cpus")."""


@dataclass(frozen=True)
class ConfigFile:
    """A YAML file that holds sections.

    Attributes:
        path: the file.
        data: its content.
        lines: the line of every key and list item, counted from 1.
    """

    path: Path
    data: dict[Any, Any]
    lines: dict[Key, int]

    def locate(self, key: Sequence[str | int]) -> str:
        """Return `FILE:LINE` of a key, or of the innermost section around it that the file has."""
        for length in range(len(key), 0, -1):
            if tuple(key[:length]) in self.lines:
                return f"{self.path}:{self.lines[tuple(key[:length])]}"
        return str(self.path)


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte-order mark.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give a file") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if content.startswith(UTF_16):
        raise ConfigError(f"{path}:1: this is UTF-16 text; save the file as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None


def read_config_file(path: Path) -> ConfigFile:
    """Read a YAML file that holds sections.

    Raises:
        ConfigError: it cannot be read, is not valid YAML, or holds something else.
    """
    text = read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{_locate_error(path, error)}: not valid YAML: {_explain_error(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: not valid YAML: {error.reason}") from None
    except (ValueError, RecursionError) as error:  # a date that does not exist; thousands of levels
        raise ConfigError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if root is None or data is None:
        raise ConfigError(f"{path} is empty; write at least `rewards:` with one reward")
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {_kind_of(data)}, not sections such as `rewards:`")
    lines: dict[Key, int] = {}
    repeated = [f"{path}:{line}: {key} is there twice; keep one" for key, line in _number_lines(root, (), lines)]
    if repeated:
        raise ConfigError("\n".join(repeated))
    return ConfigFile(path, data, lines)


def _number_lines(node: yaml.Node, key: Key, lines: dict[Key, int]) -> Iterator[tuple[str, int]]:
    """Note the line of every key below a node. Yield each key that its section already has, with its line."""
    if isinstance(node, yaml.MappingNode):
        children = [(child.value, child.start_mark.line + 1, value) for child, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, value.start_mark.line + 1, value) for index, value in enumerate(node.value)]
    else:
        return
    for name, line, value in children:
        inner = (*key, name)
        if inner in lines:
            yield ".".join(map(str, inner)), line
            continue
        lines[inner] = line
        if len(inner) < 20:  # an alias can make a section contain itself
            yield from _number_lines(value, inner, lines)


def _locate_error(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{path}:{mark.line + 1}" if mark is not None else str(path)


def _explain_error(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it cannot be parsed"
    return f"{problem}; YAML indents with spaces, not tabs" if "'\\t'" in problem else problem


def _kind_of(data: Any) -> str:
    return {list: "a list", str: "a text", bool: "true or false"}.get(type(data), f"a {type(data).__name__}")
