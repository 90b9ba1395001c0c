"""The version of the project that wrote a run, and whether this version can go on with it."""

from __future__ import annotations

from importlib import metadata

from drpo.errors import ConfigError

RUN_FORMAT = 1
"""The format of a run's folder. Raise it when an older version could no longer read what this one writes."""

PROJECT_VERSION = metadata.version("drpo")


def check_format(what: object, version: str, run_format: int) -> None:
    """Refuses what a version with a newer format has written.

    Raises:
        ConfigError: this version cannot read it; the message names both versions.
    """
    if run_format > RUN_FORMAT:
        raise ConfigError(
            f"{what} was written by drpo {version} (format {run_format}); this is drpo {PROJECT_VERSION}, which reads "
            f"formats up to {RUN_FORMAT}. Go on with it in drpo {version}, or install a newer version here"
        )
