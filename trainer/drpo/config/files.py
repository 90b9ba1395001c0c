"""Read the files that hold settings: presets, the site's file, and the config.yaml of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drpo.config.config import Config
from drpo.errors import ConfigError
from drpo_rewards import errors
from drpo_rewards.settings.files import parse_settings, read_text


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
        text = read_text(path, name)
    except errors.ConfigError as error:
        raise ConfigError(str(error)) from None
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
        return parse_settings(text, name, Config).sections
    except errors.ConfigError as error:
        raise ConfigError(str(error)) from None
