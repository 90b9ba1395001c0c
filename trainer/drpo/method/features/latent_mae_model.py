"""Latent-MAE: a masked autoencoder over VAE latents. Its encoder is the feature map of the drifting models.

The networks are in `drpo.method.features.latent_mae_network`, the feature map is in `drpo.method.features.latent_mae`.
A folder holds `config.json` (LatentMAEConfig) and `model.safetensors`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from drpo.errors import ConfigError, ModelLoadError, ShapeError
from drpo.method.features.latent_mae_network import Decoder, Encoder, LatentMAEConfig
from drpo.method.features.statistics import root_mean_square, statistic, statistic_names

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INPUT_KEY = "norm_x"
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
        """The means and deviations of every map but conv1 for latents of this size, shallow to deep."""
        keys: list[str] = []
        for layer, size in self.config.map_sizes(height, width).items():
            keys += statistic_names(layer, *size)
        return keys

    def features(self, latents_NChw: Tensor, keys: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Multi-layer features of unmasked latents as {key: (N, T, D)}, in the order of `keys`.

        A key is a layer (`layer2`: one token per location), or its global statistics (`layer2_mean`, `layer2_std`: one
        token), or its patch statistics (`layer2_mean_4`: one token per 4x4 patch). `norm_x` is the root mean square of
        each channel of the latents themselves. None means all of `feature_keys`.
        """
        if latents_NChw.ndim != 4 or latents_NChw.shape[1] != self.config.in_channels:
            raise ShapeError(
                f"latent-MAE: latents must be (N, {self.config.in_channels}, h, w), not {tuple(latents_NChw.shape)}"
            )
        if keys is None:
            keys = tuple(self.feature_keys(latents_NChw.shape[2], latents_NChw.shape[3]))
        maps = self.encoder(latents_NChw)
        maps[INPUT_KEY] = latents_NChw
        return {key: self._feature(maps, key) for key in keys}

    @staticmethod
    def _feature(maps: dict[str, Tensor], key: str) -> Tensor:
        if key == INPUT_KEY:
            return root_mean_square(maps[key])
        layer, suffix = split_key(key, maps)
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
        config = read_config(folder)
        try:
            model = cls(config)
            model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise _cannot_load(folder, error) from error
        return model


def read_config(folder: Path) -> LatentMAEConfig:
    """The config in a folder, once the header of its weights has been read too.

    Raises:
        ModelLoadError: a file is missing or damaged.
    """
    try:
        config = LatentMAEConfig.model_validate_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS_FILE, framework="pt"):
            return config
    except (OSError, ValidationError, SafetensorError) as error:
        raise _cannot_load(folder, error) from error


def _cannot_load(folder: Path, error: Exception) -> ModelLoadError:
    reason = str(error)
    if isinstance(error, FileNotFoundError) and error.filename:
        reason = f"there is no {Path(error.filename).name}"
    return ModelLoadError(
        f"latent-MAE: cannot load {folder}: {reason}. The folder must hold {CONFIG_FILE} and {WEIGHTS_FILE} of the "
        "same model; `drpo shapes pretrain` writes such a folder."
    )


def split_key(key: str, layers: Collection[str]) -> tuple[str, str]:
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
