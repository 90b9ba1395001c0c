"""The latents themselves as features, without a network. The paper's Table 3b shows that they work badly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drpo.errors import ConfigError
from drpo.method.features.base import FeatureContext
from drpo.method.features.statistics import statistic, statistic_names


class RawLatentFeatures:
    """Tokens, means and deviations of the latent map, under the layer name `latent`.

    Args:
        path, device: ignored, because there are no weights.
        keys: the features to compute, such as ("latent", "latent_mean_4"); None: all of them.
        dtype: of the features.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        keys: tuple[str, ...] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        del path, device
        self.keys = tuple(keys) if keys else None
        self.dtype = dtype

    @staticmethod
    def check(path: object = None, *, keys: Any = None, dtype: torch.dtype = torch.float32) -> None:
        """Checks the keys.

        Raises:
            ConfigError: they are not a list of statistics of `latent`, or the dtype is none.
        """
        if not isinstance(dtype, torch.dtype):
            raise ConfigError(f"dtype = {dtype!r}: only code can set it")
        if keys is not None and not isinstance(keys, list | tuple):
            raise ConfigError(f"keys = {keys!r}: it must be a list, such as [latent, latent_mean_2]")
        for key in keys or ():
            if not re.fullmatch(r"latent(_(mean|std)(_\d+)?)?", str(key)):
                raise ConfigError(
                    f"raw latents: there is no feature {key!r}; a key is latent, alone or followed by _mean, _std, "
                    "_mean_<size> or _std_<size>"
                )

    def of_latents(self, latents_NChw: Tensor, context: FeatureContext | None = None) -> dict[str, Tensor]:
        """The statistics {key: (N, T, C)} of latents (N, C, h, w)."""
        latents_NChw = latents_NChw.to(self.dtype)
        keys = self.keys or statistic_names("latent", latents_NChw.shape[2], latents_NChw.shape[3])
        return {key: statistic(latents_NChw, key.removeprefix("latent").removeprefix("_")) for key in keys}
