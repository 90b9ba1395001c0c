"""Preferences: chosen and rejected images, read from a source and encoded once.

Each source has one file in `sources/`, and one line in `PREFERENCE_SOURCES`.

Files:
    source      what a source is
    record      one preference, and one file of a set
    pictures    an image as the autoencoder takes it
    cache       the encoded images on the disk
    sources/    the sources
"""

from __future__ import annotations

from importlib import import_module

from drpo.config import OfflineConfig
from drpo.data.preferences.record import Part, Picture, Preference, Side
from drpo.data.preferences.source import PreferenceSource
from drpo.errors import ConfigError

PREFERENCE_SOURCES = {
    "file": "drpo.data.preferences.sources.file",
    "pickapic_v2": "drpo.data.preferences.sources.pickapic_v2",
}


def find_preference_source(name: str) -> PreferenceSource:
    """The source of this name.

    Raises:
        ConfigError: there is no such source.
    """
    if name not in PREFERENCE_SOURCES:
        raise ConfigError(
            f"offline.source: there is no source of preferences {name!r}; choose from {', '.join(PREFERENCE_SOURCES)}"
        )
    source: PreferenceSource = import_module(PREFERENCE_SOURCES[name]).SOURCE
    return source


def read_preference_prompts(settings: OfflineConfig) -> list[str] | None:
    """The different prompts of a preference set, in the order of the set; None if only its images are read with it.

    Raises:
        ConfigError: there is no such source, the data are not there or have mistakes (one line for each), or they hold
            no preference.
    """
    prompts = find_preference_source(settings.source).read_prompts(settings)
    if prompts is not None and not prompts:
        where = f" ({settings.path})" if settings.path else ""
        raise ConfigError(f"offline: the source {settings.source}{where} has no preferences")
    return list(dict.fromkeys(prompts)) if prompts is not None else None


__all__ = [
    "PREFERENCE_SOURCES",
    "Part",
    "Picture",
    "Preference",
    "PreferenceSource",
    "Side",
    "find_preference_source",
    "read_preference_prompts",
]
