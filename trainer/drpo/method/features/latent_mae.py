"""The encoder of a latent-MAE as a feature map over latents, the paper's default for SD-Turbo.

`features.path` is a folder with `config.json` and `model.safetensors`, or the public file `mae_latent_256_torch.pth` or
its folder, or a hub id with either.

The paper's Table 3b compares three selections of features and describes each in words only. They are read as follows:

latent_mae_1   "the default multi-feature variant": means and deviations of every stage and of every second block
latent_mae_2   "the last three layers": those of the last three stages
latent_mae_3   "only the final layer": those of the last stage, the six keys in the authors' launch command

Each has the mean and the deviation of the whole map, of 2x2 and of 4x4 patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from drpo.errors import ConfigError, ShapeError
from drpo.generators.base import Layout
from drpo.method.features.base import FeatureContext, FeatureSettings, ListedFeatureMap
from drpo.method.features.latent_mae_model import CONFIG_FILE, INPUT_KEY, LatentMAE, read_config, split_key
from drpo.method.features.latent_mae_network import LatentMAEConfig
from drpo.method.features.public_latent_mae import read_public_checkpoint, read_public_config
from drpo.method.features.source import PUBLIC_FILE, fetch_files
from drpo.method.features.statistics import statistic_names

_LAST_STAGES = {"latent_mae_2": 3, "latent_mae_3": 1}


class LatentMAESettings(FeatureSettings):
    """Which features of the latent-MAE are used.

    Example:
        features:
          name: latent_mae
          path: models/mae_latent_256_torch.pth
          options:
            selection: latent_mae_3
    """

    selection: Literal["latent_mae_1", "latent_mae_2", "latent_mae_3"] = Field(
        default="latent_mae_1", description="1: all stages; 2: the last three; 3: the last one"
    )
    keys: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="the features, such as [layer1_mean, layer2_std_4]; null: those of `selection`",
    )
    norm_x: bool = Field(default=False, description="also the root mean square of each channel of the latents")

    @model_validator(mode="after")
    def _check_choice(self) -> LatentMAESettings:
        if self.keys is not None and "selection" in self.model_fields_set:
            raise ValueError("give either keys or selection, not both")
        return self


class LatentMAEFeatures(ListedFeatureMap):
    """A frozen latent-MAE as a feature map over latents.

    Args:
        source: the files, see the module's docstring.
        settings: which features to compute; None: the defaults.
        device: where the model computes.
        dtype: of the model; latents of another dtype are converted.
    """

    settings_class = LatentMAESettings
    weights = "files"

    def __init__(
        self,
        source: str | Path,
        settings: LatentMAESettings | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        path = _locate(fetch_files(source))
        model = read_public_checkpoint(path) if path.is_file() else LatentMAE.load(path)
        self.model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.settings = settings or LatentMAESettings()
        self.dtype = dtype

    @classmethod
    def check(cls, settings: LatentMAESettings, path: Path | None, layout: Layout | None) -> None:
        """See `ListedFeatureMap.check`."""
        if path is None:
            return
        path = _locate(path)
        config = read_public_config(path) if path.is_file() else read_config(path)
        for key in settings.keys or ():
            if key != INPUT_KEY:
                split_key(key, config.layers)
        if layout is not None:
            _check_layout(settings, config, layout)

    def of_latents(self, latents_NChw: Tensor, context: FeatureContext | None = None) -> dict[str, Tensor]:
        """The features {key: (N, T, D)} of latents (N, C, h, w); see `LatentMAE.features`."""
        keys = select_keys(self.settings, self.model.config, latents_NChw.shape[2], latents_NChw.shape[3])
        return self.model.features(latents_NChw.to(self.dtype), keys)


def select_keys(settings: LatentMAESettings, config: LatentMAEConfig, height: int, width: int) -> tuple[str, ...]:
    """The keys that the settings select for latents of this size."""
    keys = list(settings.keys or ())
    if not keys:
        sizes = config.map_sizes(height, width)
        if settings.selection in _LAST_STAGES:
            count = len(config.widths)
            first = max(1, count + 1 - _LAST_STAGES[settings.selection])
            sizes = {f"layer{stage}": sizes[f"layer{stage}"] for stage in range(first, count + 1)}
        keys = [key for layer, size in sizes.items() for key in statistic_names(layer, *size)]
    return tuple(dict.fromkeys([INPUT_KEY, *keys] if settings.norm_x else keys))


def _locate(path: Path) -> Path:
    """The folder of this project's layout, or the file of the public one."""
    public = path / PUBLIC_FILE
    return public if public.is_file() and not (path / CONFIG_FILE).is_file() else path


def _check_layout(settings: LatentMAESettings, config: LatentMAEConfig, layout: Layout) -> None:
    """Checks that the model was trained on the generator's latents, and that the keys fit their size."""
    ours, theirs = config.scaling_factor, layout.scaling_factor
    if ours is not None and abs(ours - theirs) > 1e-6:
        raise ConfigError(
            f"latent-MAE: it was trained on latents that a VAE scales by {ours:g}, but the generator's VAE scales by "
            f"{theirs:g}, so it is another VAE, and its latents mean something else. Use a latent-MAE of that VAE, or "
            "a feature map over images, such as image_mae"
        )
    channels, height, width = layout.latent_shape
    try:
        with torch.device("meta"):  # only the shapes
            keys = select_keys(settings, config, height, width)
            LatentMAE(config.model_copy(update={"decoder": False})).features(
                torch.zeros(1, channels, height, width), keys
            )
    except ShapeError as error:
        raise ConfigError(f"the generator's latents have {channels} x {height} x {width} values. {error}") from error
