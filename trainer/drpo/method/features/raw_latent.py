"""The latents themselves as features: no network, no weights. The paper's Table 3b shows that they serve badly."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from drpo.method.features.statistics import statistic, statistic_names


class RawLatentFeatures:
    """Tokens, means and deviations of the latent map, under the layer name `latent`; see `FeatureMap`."""

    space: Literal["latent"] = "latent"

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        keys: tuple[str, ...] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        del path, device  # there is nothing to load and nothing to place
        self.keys = tuple(keys) if keys else None
        self.dtype = dtype

    def __call__(self, x_NCHW: Tensor) -> dict[str, Tensor]:
        latents_NChw = x_NCHW.to(self.dtype)
        keys = self.keys or statistic_names("latent", latents_NChw.shape[2], latents_NChw.shape[3])
        return {key: statistic(latents_NChw, key.removeprefix("latent").removeprefix("_")) for key in keys}
