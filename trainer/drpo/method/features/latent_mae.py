"""Latent-MAE: a masked autoencoder over VAE latents. Its encoder is the feature map of the drifting models.

The networks are in `drpo.method.features.latent_mae_network`. A folder holds `config.json` (LatentMAEConfig) and
`model.safetensors`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from drpo.errors import ConfigError, ModelLoadError, ShapeError
from drpo.method.features.base import FeatureContext
from drpo.method.features.latent_mae_network import Decoder, Encoder, LatentMAEConfig
from drpo.method.features.statistics import statistic, statistic_names

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_FEATURE_KEY = re.compile(r"(?P<layer>conv1|layer\d+(?:_blk\d+)?)(?:_(?P<suffix>(?:mean|std)(?:_\d+)?))?")


class LatentMAE(nn.Module):
    """The masked autoencoder: `masked_loss` trains it, and the drift field uses its `features`."""

    def __init__(self, config: LatentMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        if config.decoder:
            self.decoder = Decoder(config)

    # -- pretraining --------------------------------------------------------------------------------------------

    def draw_mask(self, latents_NChw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A random mask (N, 1, h, w) of squares of `mask_patch`: 1 is hidden, 0 visible. Each sample hides some."""
        n, _, h, w = latents_NChw.shape
        patch = self.config.mask_patch
        if h % patch or w % patch:
            raise ShapeError(f"latent-MAE: latents of {h}x{w} do not divide into mask squares of {patch}x{patch}")
        device = generator.device if generator is not None else latents_NChw.device
        low, high = self.config.mask_ratio
        ratio_N1 = low + (high - low) * torch.rand(n, 1, generator=generator, device=device)
        noise_NP = torch.rand(n, (h // patch) * (w // patch), generator=generator, device=device)
        hidden_NP = (noise_NP < ratio_N1) | (noise_NP == noise_NP.amin(dim=1, keepdim=True))
        squares = hidden_NP.reshape(n, 1, h // patch, w // patch).to(latents_NChw)
        return squares.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)

    def forward_masked(self, latents_NChw: Tensor, mask_N1hw: Tensor) -> Tensor:
        """Reconstructs all latents (N, C, h, w) from the visible ones; the hidden ones are set to 0."""
        if not self.config.decoder:
            raise ConfigError("latent-MAE: this model has no decoder (decoder=false), so it cannot reconstruct")
        return self.decoder(self.encoder(latents_NChw * (1 - mask_N1hw)))

    def masked_loss(self, latents_NChw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean squared error of the hidden latents, averaged over the samples; a scalar."""
        mask_N1hw = self.draw_mask(latents_NChw, generator)
        error_NChw = (self.forward_masked(latents_NChw, mask_N1hw) - latents_NChw).square().float()
        hidden_N = mask_N1hw.sum(dim=(1, 2, 3)).float()
        return ((error_NChw.mean(dim=1, keepdim=True) * mask_N1hw).sum(dim=(1, 2, 3)) / hidden_N).mean()

    # -- features -----------------------------------------------------------------------------------------------

    def feature_keys(self, height: int, width: int) -> list[str]:
        """The keys that `features` returns by default for latents of this size: shallow to deep, without conv1."""
        keys: list[str] = []
        for i, blocks in enumerate(self.config.blocks):
            if i:  # a 3x3 convolution of stride 2 and padding 1 rounds up
                height, width = (height + 1) // 2, (width + 1) // 2
            for layer in [*(f"layer{i + 1}_blk{number}" for number in range(2, blocks, 2)), f"layer{i + 1}"]:
                keys += statistic_names(layer, height, width)
        return keys

    def features(self, latents_NChw: Tensor, keys: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Multi-layer features of unmasked latents as {key: (N, T, D)}, in the order of `keys`.

        A key is a layer (`layer2`: one token per location), or its global statistics (`layer2_mean`, `layer2_std`: one
        token), or its patch statistics (`layer2_mean_4`: one token per 4x4 patch). None means all of `feature_keys`.
        """
        if latents_NChw.ndim != 4 or latents_NChw.shape[1] != self.config.in_channels:
            raise ShapeError(
                f"latent-MAE: latents must be (N, {self.config.in_channels}, h, w), not {tuple(latents_NChw.shape)}"
            )
        if keys is None:
            keys = tuple(self.feature_keys(latents_NChw.shape[2], latents_NChw.shape[3]))
        maps = self.encoder(latents_NChw)
        return {key: self._feature(maps, key) for key in keys}

    @staticmethod
    def _feature(maps: dict[str, Tensor], key: str) -> Tensor:
        layer, suffix = _split_key(key, maps)
        return statistic(maps[layer], suffix)

    # -- folder -------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors into `folder`, which is created if it is missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> LatentMAE:
        """Reads a folder that `save` wrote.

        Raises:
            ModelLoadError: a file is missing or does not fit the config.
        """
        folder = Path(folder)
        try:
            config = LatentMAEConfig.model_validate_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            model = cls(config)
            model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, ValidationError, SafetensorError, RuntimeError) as error:
            raise _cannot_load(folder, error) from error
        return model


def _cannot_load(folder: Path, error: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"latent-MAE: cannot load {folder}: {error}. The folder must hold {CONFIG_FILE} and {WEIGHTS_FILE} of the same "
        "model; `drpo shapes pretrain` writes such a folder."
    )


def _split_key(key: str, layers: Collection[str]) -> tuple[str, str]:
    """The layer and the statistic ("" for none) that a key names.

    Raises:
        ConfigError: there is no such feature.
    """
    match = _FEATURE_KEY.fullmatch(key)
    if match is None or match["layer"] not in layers:
        raise ConfigError(
            f"latent-MAE: there is no feature {key!r}; a key is one of {', '.join(layers)}, alone or followed by "
            "_mean, _std, _mean_<size> or _std_<size>"
        )
    return match["layer"], match["suffix"] or ""


class LatentMAEFeatures:
    """A frozen latent-MAE as a feature map over latents.

    Args:
        folder: a folder with config.json and model.safetensors.
        keys: the features to compute, such as ("layer1_mean", "layer2_std_4"); None: all of them.
        device: where the model computes.
        dtype: of the model; latents of another dtype are converted.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keys: tuple[str, ...] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = LatentMAE.load(folder).to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.keys = tuple(keys) if keys else None
        self.dtype = dtype

    @staticmethod
    def check(folder: str | Path | None, *, keys: Any = None, dtype: torch.dtype = torch.float32) -> None:
        """Checks the folder's config, the header of its weights, and the keys. Loads nothing.

        Raises:
            ModelLoadError: there is no folder, or a file is missing or damaged.
            ConfigError: a key is not one of the model's, or the dtype is none.
        """
        if folder is None:
            raise ModelLoadError("latent-MAE needs the folder of its weights")
        folder = Path(folder)
        try:
            config = LatentMAEConfig.model_validate_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            with safe_open(folder / WEIGHTS_FILE, framework="pt"):
                pass
        except (OSError, ValidationError, SafetensorError) as error:
            raise _cannot_load(folder, error) from error
        if not isinstance(dtype, torch.dtype):
            raise ConfigError(f"dtype = {dtype!r}: only code can set it")
        if keys is not None and not isinstance(keys, list | tuple):
            raise ConfigError(f"keys = {keys!r}: it must be a list, such as [layer1_mean, layer2_std]")
        for key in keys or ():
            _split_key(str(key), config.layers)

    def of_latents(self, latents_NChw: Tensor, context: FeatureContext | None = None) -> dict[str, Tensor]:
        """The features {key: (N, T, D)} of latents (N, C, h, w); see `LatentMAE.features`."""
        return self.model.features(latents_NChw.to(self.dtype), self.keys)
