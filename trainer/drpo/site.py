"""Settings that belong to a place, not to a preset: where its runs are kept, and what ranks there.

$DRPO_SITE names a YAML file with sections as in a preset. It is laid over every preset and under the command line, so
that the same command trains on a laptop and on a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from drpo.errors import ConfigError

SITE = "DRPO_SITE"


def site_settings() -> dict[str, Any]:
    """The sections of this place; none where $DRPO_SITE is not set.

    Raises:
        ConfigError: there is no such file, or it does not hold sections.
    """
    path = os.environ.get(SITE)
    if not path:
        return {}
    try:
        return read_sections(Path(path).read_text(), f"${SITE} ({path})")
    except OSError as error:
        raise ConfigError(f"${SITE}: cannot read {path}: {error.strerror}") from None


def runs_folder() -> Path:
    """Where runs are looked for by their names."""
    return Path((site_settings().get("run") or {}).get("folder", "runs"))


def read_sections(text: str, name: str) -> dict[str, Any]:
    """The mapping of sections in a YAML text; `name` is what messages call it.

    Raises:
        ConfigError: it is not YAML, or something else than sections.
    """
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name} must hold sections (run, model, ...), not a {type(values).__name__}")
    return values


def lay_over(values: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Sets in `values` what `others` have, section by section."""
    for key, other in others.items():
        if isinstance(other, Mapping) and isinstance(values.get(key), dict):
            lay_over(values[key], other)
        else:
            values[key] = other
