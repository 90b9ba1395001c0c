"""What a source of preferences is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drpo.config import OfflineConfig
from drpo.data.preferences.record import Part


@dataclass(frozen=True)
class PreferenceSource:
    """One line of `PREFERENCE_SOURCES`.

    Attributes:
        about: one line for `drpo preferences list`.
        read_prompts: the prompt of each preference, without reading any image; None if only reading all of the data
            would tell. Raises a ConfigError with one line for everything that is wrong.
        count_images: at most how many images are encoded; None if only reading all of the data would tell. Raises the
            same errors.
        open_parts: the files of the set, in a fixed order.
        identify: a text that changes when the data change. With it a cache of encoded images is found again.
    """

    about: str
    read_prompts: Callable[[OfflineConfig], list[str] | None]
    count_images: Callable[[OfflineConfig], int | None]
    open_parts: Callable[[OfflineConfig], list[Part]]
    identify: Callable[[OfflineConfig], str]
