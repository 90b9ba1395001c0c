"""Latent-MAE: a ResNet masked autoencoder over VAE latents, the feature map of the drifting models.

The encoder and decoder follow the public model of "Generative Modeling via Drifting" (Deng et al., 2026,
arXiv 2602.04770), and the parameters carry its names (`encoder.stages_0.layers_1.conv2.weight`,
`encoder.layer3_norm.weight`, `decoder.up43.proj.conv.weight`), so that a public checkpoint is read by
`drpo.method.features.public_latent_mae`. Differences: the stage widths are free (the public ones double from stage to
stage), and so is the number of stages.

    encoder   conv1 3x3 - GroupNorm - ReLU, then stages of basic residual blocks. The first block of every stage but
              the first halves the resolution; a stage ends in a GroupNorm whose output is the stage's feature map
              `layer1`, `layer2`, ... and the input of the next stage.
    decoder   a U-Net path from the last stage back to conv1's resolution (used in pretraining only).

A folder holds `config.json` (LatentMAEConfig) and `model.safetensors`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from drpo.errors import ConfigError, ModelLoadError, ShapeError
from drpo.method.features.statistics import statistic, statistic_names

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_KEY = re.compile(r"(?P<layer>conv1|layer\d+(?:_blk\d+)?)(?:_(?P<suffix>(?:mean|std)(?:_\d+)?))?")


class LatentMAEConfig(BaseModel):
    """Shape of a latent-MAE. The defaults are the public 340M one (`mae_latent_256`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: int = Field(default=4, ge=1)
    widths: tuple[int, ...] = Field(default=(256, 512, 1024, 2048), min_length=1, description="channels of each stage")
    blocks: tuple[int, ...] = Field(default=(3, 4, 6, 3), min_length=1, description="residual blocks of each stage")
    mask_patch: int = Field(default=2, ge=1, description="side of a masked square, in latent pixels")
    mask_ratio: tuple[float, float] = Field(
        default=(0.5, 0.5), description="range from which each sample's ratio is drawn"
    )
    norm_groups: int = Field(
        default=32,
        ge=1,
        description="most groups of a GroupNorm; narrow widths want fewer: small groups lose the latents' level",
    )
    norm_eps: float = Field(default=1e-6, gt=0)
    decoder: bool = Field(default=True, description="false for a checkpoint that carries the encoder alone")

    @model_validator(mode="after")
    def _fits_together(self) -> LatentMAEConfig:
        low, high = self.mask_ratio
        if len(self.widths) != len(self.blocks):
            raise ValueError(f"latent-MAE: {len(self.widths)} widths, {len(self.blocks)} block counts; give one each")
        if min(self.widths) < 1 or min(self.blocks) < 1:
            raise ValueError("latent-MAE: every width and every block count must be at least 1")
        if not 0.0 < low <= high <= 1.0:
            raise ValueError(f"latent-MAE: mask_ratio must be 0 < low <= high <= 1, not {self.mask_ratio}")
        return self


def _group_norm(channels: int, config: LatentMAEConfig) -> nn.GroupNorm:
    """GroupNorm with the largest number of groups, at most `norm_groups`, that divides the channels."""
    groups = next(g for g in range(min(config.norm_groups, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=config.norm_eps)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions with GroupNorm, and a residual that is projected only where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int, config: LatentMAEConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.gn1 = _group_norm(channels, config)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gn2 = _group_norm(channels, config)
        self.projects = stride != 1 or in_channels != channels
        if self.projects:
            self.proj_conv = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
            self.proj_gn = _group_norm(channels, config)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.proj_gn(self.proj_conv(x)) if self.projects else x
        y = F.relu(self.gn1(self.conv1(x)))
        return F.relu(shortcut + self.gn2(self.conv2(y)))


class _Stage(nn.Module):
    """The residual blocks of one resolution, named `layers_0`, `layers_1`, ... as in the public checkpoint."""

    def __init__(self, in_channels: int, channels: int, blocks: int, stride: int, config: LatentMAEConfig) -> None:
        super().__init__()
        for i in range(blocks):
            block = _BasicBlock(channels if i else in_channels, channels, 1 if i else stride, config)
            self.add_module(f"layers_{i}", block)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The output of every block, in order."""
        outputs = []
        for block in self.children():
            x = block(x)
            outputs.append(x)
        return outputs


class _Encoder(nn.Module):
    def __init__(self, config: LatentMAEConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(config.in_channels, config.widths[0], 3, padding=1, bias=False)
        self.gn1 = _group_norm(config.widths[0], config)
        channels = config.widths[0]
        for i, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            self.add_module(f"stages_{i}", _Stage(channels, width, blocks, 2 if i else 1, config))
            self.add_module(f"layer{i + 1}_norm", _group_norm(width, config))
            channels = width
        self.num_stages = len(config.widths)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps by name, shallow to deep: conv1, layer1_blk2, layer1, layer2_blk2, ...

        Every second block inside a stage is a feature of its own; a stage's last block is represented by the stage.
        """
        maps = {"conv1": F.relu(self.gn1(self.conv1(x)))}
        x = maps["conv1"]
        for i in range(self.num_stages):
            outputs = self.get_submodule(f"stages_{i}")(x)
            for number in range(2, len(outputs), 2):
                maps[f"layer{i + 1}_blk{number}"] = outputs[number - 1]
            x = self.get_submodule(f"layer{i + 1}_norm")(outputs[-1])
            maps[f"layer{i + 1}"] = x
        return maps


class _ConvNormReLU(nn.Module):
    def __init__(self, in_channels: int, channels: int, config: LatentMAEConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.gn = _group_norm(channels, config)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.gn(self.conv(x)))


class _UpBlock(nn.Module):
    """Upsample to the skip's size, join it, and mix down to the skip's width."""

    def __init__(self, in_channels: int, skip_channels: int, config: LatentMAEConfig) -> None:
        super().__init__()
        self.concat_norm_fn = _group_norm(in_channels + skip_channels, config)
        self.proj = _ConvNormReLU(in_channels + skip_channels, skip_channels, config)
        self.refine = _ConvNormReLU(skip_channels, skip_channels, config)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.refine(self.proj(self.concat_norm_fn(torch.cat([x, skip], dim=1))))


class _Decoder(nn.Module):
    """`up43` joins layer4 with layer3, ..., and `up10` joins layer1 with conv1."""

    def __init__(self, config: LatentMAEConfig) -> None:
        super().__init__()
        channels = config.widths[-1]
        self.bridge = _ConvNormReLU(channels, channels, config)
        for level in range(len(config.widths), 0, -1):
            skip_channels = config.widths[max(level - 2, 0)]
            self.add_module(f"up{level}{level - 1}", _UpBlock(channels, skip_channels, config))
            channels = skip_channels
        self.head = nn.Conv2d(channels, config.in_channels, 1)
        self.num_stages = len(config.widths)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        x = self.bridge(maps[f"layer{self.num_stages}"])
        for level in range(self.num_stages, 0, -1):
            skip = maps[f"layer{level - 1}"] if level > 1 else maps["conv1"]
            x = self.get_submodule(f"up{level}{level - 1}")(x, skip)
        return self.head(x)


class LatentMAE(nn.Module):
    """The masked autoencoder: `masked_loss` trains it, `features` is what the drift field uses."""

    def __init__(self, config: LatentMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        if config.decoder:
            self.decoder = _Decoder(config)

    # -- pretraining --------------------------------------------------------------------------------------------

    def draw_mask(self, latents_NChw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A random (N, 1, h, w) mask of 0 and 1 (1 is hidden), in squares of `mask_patch`; at least one is hidden."""
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
        """Reconstruct the latents (N, C, h, w) from what the mask leaves visible; hidden latents are set to 0."""
        if not self.config.decoder:
            raise ConfigError("latent-MAE: this model has no decoder (decoder=false), so it cannot reconstruct")
        return self.decoder(self.encoder(latents_NChw * (1 - mask_N1hw)))

    def masked_loss(self, latents_NChw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error over the hidden latents alone, averaged over the samples; a scalar."""
        mask_N1hw = self.draw_mask(latents_NChw, generator)
        error_NChw = (self.forward_masked(latents_NChw, mask_N1hw) - latents_NChw).square().float()
        hidden_N = mask_N1hw.sum(dim=(1, 2, 3)).float()
        return ((error_NChw.mean(dim=1, keepdim=True) * mask_N1hw).sum(dim=(1, 2, 3)) / hidden_N).mean()

    # -- features -----------------------------------------------------------------------------------------------

    def feature_keys(self, height: int, width: int) -> list[str]:
        """Every key that `features` gives by default for latents of this size, shallow to deep; conv1 is left out."""
        keys: list[str] = []
        for i, blocks in enumerate(self.config.blocks):
            if i:  # a 3x3 convolution of stride 2 and padding 1 rounds up
                height, width = (height + 1) // 2, (width + 1) // 2
            for layer in [*(f"layer{i + 1}_blk{number}" for number in range(2, blocks, 2)), f"layer{i + 1}"]:
                keys += statistic_names(layer, height, width)
        return keys

    def features(self, latents_NChw: Tensor, keys: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Multi-layer features of unmasked latents as {key: (N, T, D)}, in the order of `keys`.

        A key is a layer (`layer2`: every location), its global statistics (`layer2_mean`, `layer2_std`: one token)
        or patch statistics (`layer2_mean_4`: a token per 4x4 patch). None means all of `feature_keys`.
        """
        if latents_NChw.ndim != 4 or latents_NChw.shape[1] != self.config.in_channels:
            raise ShapeError(
                f"latent-MAE: wants latents (N, {self.config.in_channels}, h, w), was given {tuple(latents_NChw.shape)}"
            )
        if keys is None:
            keys = tuple(self.feature_keys(latents_NChw.shape[2], latents_NChw.shape[3]))
        maps = self.encoder(latents_NChw)
        return {key: self._feature(maps, key) for key in keys}

    @staticmethod
    def _feature(maps: dict[str, Tensor], key: str) -> Tensor:
        match = _KEY.fullmatch(key)
        if match is None or match["layer"] not in maps:
            raise ConfigError(
                f"latent-MAE: no feature {key!r}; a key is one of {', '.join(maps)}, alone or followed by _mean, _std, "
                "_mean_<size> or _std_<size>"
            )
        return statistic(maps[match["layer"]], match["suffix"] or "")

    # -- folder -------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into `folder`, which is made if it is missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> LatentMAE:
        """Read a folder that `save` wrote. Raises ModelLoadError when a file is missing or does not fit the config."""
        folder = Path(folder)
        try:
            config = LatentMAEConfig.model_validate_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            model = cls(config)
            model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, ValidationError, SafetensorError, RuntimeError) as error:
            raise ModelLoadError(
                f"latent-MAE: cannot load {folder}: {error}. It must hold {CONFIG_FILE} and {WEIGHTS_FILE} that fit "
                "each other; `drpo shapes pretrain` writes such a folder."
            ) from error
        return model


class LatentMAEFeatures:
    """The frozen latent-MAE of a folder as a feature map over latents (see `drpo.method.features.base.FeatureMap`)."""

    space: Literal["latent"] = "latent"

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

    def __call__(self, x_NCHW: Tensor) -> dict[str, Tensor]:
        return self.model.features(x_NCHW.to(self.dtype), self.keys)

    def to(self, device: str | torch.device) -> LatentMAEFeatures:
        """Move the model; returns itself."""
        self.model.to(device)
        return self
