"""Settings of a machine or a cluster, not of a preset: where runs are kept, and which service ranks.

$DRPO_SITE names a YAML file with sections as in a preset. Its settings replace the preset's, and the command line
replaces both, so that the same command trains on a laptop and on a cluster. For example:

    run: {folder: /volume/runs}
    rewards: {service: null, address: serve://ranking}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from drpo.errors import ConfigError

SITE_VARIABLE = "DRPO_SITE"


def site_settings() -> dict[str, Any]:
    """The sections of the file that $DRPO_SITE names, or none if it is not set.

    Raises:
        ConfigError: there is no such file, or it does not hold sections.
    """
    path = os.environ.get(SITE_VARIABLE)
    if not path:
        return {}
    try:
        return read_sections(Path(path).read_text(encoding="utf-8"), f"${SITE_VARIABLE} ({path})")
    except OSError as error:
        raise ConfigError(f"${SITE_VARIABLE}: cannot read {path}: {error.strerror}") from None


def runs_folder() -> Path:
    """The folder that is searched for a run by its name."""
    return Path((site_settings().get("run") or {}).get("folder", "runs"))


def read_sections(text: str, name: str) -> dict[str, Any]:
    """The sections in a YAML text, which error messages call `name`.

    Raises:
        ConfigError: the text is not YAML, or does not hold sections.
    """
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name} must hold sections (run, model, ...), not a {type(values).__name__}")
    return values


def merge_sections(values: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Overwrites `values` with the settings in `others`, section by section."""
    for key, other in others.items():
        if isinstance(other, Mapping) and isinstance(values.get(key), dict):
            merge_sections(values[key], other)
        else:
            values[key] = other
