"""The latents themselves as features, without a network. The paper's Table 3b shows that they work badly."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from pydantic import Field, field_validator
from torch import Tensor

from drpo.errors import ConfigError, ShapeError
from drpo.generators.base import Layout
from drpo.method.features.base import FeatureContext, FeatureSettings, ListedFeatureMap
from drpo.method.features.statistics import at_least_float32, statistic, statistic_names

_KEY = re.compile(r"latent(?:_(?:mean|std)(?:_[1-9]\d*)?)?")


class RawLatentSettings(FeatureSettings):
    """Which statistics of the latents are used.

    Example:
        features:
          name: raw_latent
          path: null
          options:
            keys: [latent_mean_4, latent_std_4]
    """

    keys: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="`latent` (a token per location, 4096 for 64 x 64), latent_mean, latent_std, latent_mean_4, ...; "
        "null: all means and deviations",
    )

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for key in keys or ():
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"there is no feature {key!r}; a key is latent, alone or followed by _mean, _std, _mean_<size> or "
                    "_std_<size>"
                )
        return keys


class RawLatentFeatures(ListedFeatureMap):
    """Means and deviations of the latents, of the whole map and of its patches; each location's values if asked.

    Args:
        settings: which features to compute; None: the defaults.
    """

    settings_class = RawLatentSettings
    weights = "none"

    def __init__(self, settings: RawLatentSettings | None = None) -> None:
        self.settings = settings or RawLatentSettings()

    @classmethod
    def check(cls, settings: RawLatentSettings, path: Path | None, layout: Layout | None) -> None:
        """See `ListedFeatureMap.check`."""
        if layout is None:
            return
        try:
            cls(settings).of_latents(torch.zeros(1, *layout.latent_shape, device="meta"))
        except ShapeError as error:
            raise ConfigError(f"raw_latent: {error}") from error

    def of_latents(self, latents_NChw: Tensor, context: FeatureContext | None = None) -> dict[str, Tensor]:
        """The statistics {key: (N, T, C)} of latents (N, C, h, w)."""
        latents_NChw = at_least_float32(latents_NChw)
        keys = self.settings.keys or statistic_names("latent", latents_NChw.shape[2], latents_NChw.shape[3])
        return {key: statistic(latents_NChw, key.removeprefix("latent").removeprefix("_")) for key in keys}
