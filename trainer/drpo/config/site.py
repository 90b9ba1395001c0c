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

from drpo.config.files import read_settings_file

SITE_VARIABLE = "DRPO_SITE"


def site_settings() -> dict[str, Any]:
    """The sections of the file that $DRPO_SITE names, or none if it is not set.

    Raises:
        ConfigError: there is no such file, or it does not hold sections.
    """
    path = os.environ.get(SITE_VARIABLE)
    if not path:
        return {}
    return read_settings_file(Path(path), name=f"${SITE_VARIABLE} ({path})", may_be_empty=True)


def runs_folder() -> Path:
    """The folder that is searched for a run by its name."""
    return Path((site_settings().get("run") or {}).get("folder") or "runs").expanduser()


def merge_sections(values: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Overwrites `values` with the settings in `others`, section by section."""
    for key, other in others.items():
        if isinstance(other, Mapping) and isinstance(values.get(key), dict):
            merge_sections(values[key], other)
        else:
            values[key] = other
