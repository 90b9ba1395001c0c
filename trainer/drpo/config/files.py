"""Read the files that hold settings: presets, the site's file, and the config.yaml of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from drpo.config.config import Config
from drpo.config.values import keep_text
from drpo.config.yaml_text import SettingsLoader
from drpo.errors import ConfigError


def read_settings_file(path: Path, *, name: str | None = None, may_be_empty: bool = False) -> dict[str, Any]:
    """The sections in a YAML file.

    Args:
        path: the file.
        name: what error messages call it; None: its path.
        may_be_empty: a file without sections is fine.

    Raises:
        ConfigError: the file cannot be read or does not hold sections; the message names the file and the line.
    """
    name = name or str(path)
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise ConfigError(f"{name} is a folder; give a YAML file with settings") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise ConfigError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}:{line}: is not UTF-8 text; save the file as UTF-8") from None
    sections = parse_sections(text, name)
    if not sections and not may_be_empty:
        raise ConfigError(f"{name} is empty; it must hold sections (run, model, ...)")
    return sections


def parse_sections(text: str, name: str) -> dict[str, Any]:
    """The sections in a YAML text, which error messages call `name`.

    Raises:
        ConfigError: the text is not YAML, or does not hold sections.
    """
    try:
        loader = SettingsLoader(text)
        node = loader.get_single_node()
        values = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise ConfigError(f"{where}: is not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: YAML does not allow the character {chr(error.character)!r}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested a thousand deep
        raise ConfigError(f"{name}: is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{name} must hold sections (run, model, ...), not a {type(values).__name__}")
    keep_text(values, node, Config)
    return values
