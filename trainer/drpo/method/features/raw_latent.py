"""The latents themselves as features, without a network. The paper's Table 3b shows that they work badly."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

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

    def of_latents(self, latents_NChw: Tensor, context: FeatureContext | None = None) -> dict[str, Tensor]:
        """The statistics {key: (N, T, C)} of latents (N, C, h, w)."""
        latents_NChw = latents_NChw.to(self.dtype)
        keys = self.keys or statistic_names("latent", latents_NChw.shape[2], latents_NChw.shape[3])
        return {key: statistic(latents_NChw, key.removeprefix("latent").removeprefix("_")) for key in keys}
