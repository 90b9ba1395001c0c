"""The networks of the latent-MAE: an encoder of residual stages and a decoder with skip connections.

The encoder and decoder follow the public model of "Generative Modeling via Drifting" (Deng et al., 2026,
arXiv 2602.04770). The parameters have its names (`encoder.stages_0.layers_1.conv2.weight`,
`encoder.layer3_norm.weight`, `decoder.up43.proj.conv.weight`), so that `drpo.method.features.public_latent_mae` can
read a public checkpoint. There are two differences: the number of stages is free, and so are their widths (in the
public model they double from stage to stage).

    encoder   conv1 3x3 - GroupNorm - ReLU, then stages of basic residual blocks. The first block of every stage but
              the first halves the resolution; a stage ends in a GroupNorm whose output is the stage's feature map
              `layer1`, `layer2`, ... and the input of the next stage.
    decoder   a U-Net path from the last stage back to conv1's resolution (used in pretraining only).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn


class LatentMAEConfig(BaseModel):
    """The shape of a latent-MAE. The defaults are those of the public model with 340M parameters (`mae_latent_256`).

    Example of a small one, for latents (N, 4, 16, 16):
        LatentMAEConfig(widths=(64, 128, 256), blocks=(2, 2, 2), norm_groups=8)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: int = Field(default=4, ge=1, description="channels of the latents")
    widths: tuple[int, ...] = Field(default=(256, 512, 1024, 2048), min_length=1, description="channels of each stage")
    blocks: tuple[int, ...] = Field(default=(3, 4, 6, 3), min_length=1, description="residual blocks of each stage")
    mask_patch: int = Field(default=2, ge=1, description="side of a masked square, in latent pixels")
    mask_ratio: tuple[float, float] = Field(
        default=(0.5, 0.5), description="share of hidden squares: each sample draws its share from this range"
    )
    norm_groups: int = Field(
        default=32,
        ge=1,
        description="most groups of a GroupNorm; use fewer for narrow stages: groups of few channels lose the mean",
    )
    norm_eps: float = Field(default=1e-6, gt=0, description="epsilon of every GroupNorm")
    scaling_factor: float | None = Field(
        default=None,
        gt=0,
        description="what the VAE multiplied its latents by in training; other latents are refused; null: not known",
    )
    decoder: bool = Field(default=True, description="false for a checkpoint with only the encoder")

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the encoder's feature maps, shallow to deep."""
        return ("conv1", *self.map_sizes(1, 1))

    def map_sizes(self, height: int, width: int) -> dict[str, tuple[int, int]]:
        """The height and width of every map but conv1 for latents of this size, shallow to deep."""
        sizes = {}
        for stage, blocks in enumerate(self.blocks, start=1):
            if stage > 1:  # a 3x3 convolution of stride 2 and padding 1 rounds up
                height, width = (height + 1) // 2, (width + 1) // 2
            for layer in [*(f"layer{stage}_blk{number}" for number in range(2, blocks, 2)), f"layer{stage}"]:
                sizes[layer] = (height, width)
        return sizes

    @model_validator(mode="after")
    def _check_stages(self) -> LatentMAEConfig:
        low, high = self.mask_ratio
        if len(self.widths) != len(self.blocks):
            raise ValueError(
                f"latent-MAE: {len(self.widths)} widths, {len(self.blocks)} block counts; give one of each per stage"
            )
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
    """Two 3x3 convolutions with GroupNorm, and a shortcut that is projected only if the shape changes."""

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

    def forward(self, x_NChw: Tensor) -> Tensor:
        shortcut_NChw = self.proj_gn(self.proj_conv(x_NChw)) if self.projects else x_NChw
        y_NChw = F.relu(self.gn1(self.conv1(x_NChw)))
        return F.relu(shortcut_NChw + self.gn2(self.conv2(y_NChw)))


class _Stage(nn.Module):
    """The residual blocks of one resolution, named `layers_0`, `layers_1`, ... as in the public checkpoint."""

    def __init__(self, in_channels: int, channels: int, blocks: int, stride: int, config: LatentMAEConfig) -> None:
        super().__init__()
        for i in range(blocks):
            block = _BasicBlock(channels if i else in_channels, channels, 1 if i else stride, config)
            self.add_module(f"layers_{i}", block)

    def forward(self, x_NChw: Tensor) -> list[Tensor]:
        """The output of every block, in order."""
        outputs = []
        for block in self.children():
            x_NChw = block(x_NChw)
            outputs.append(x_NChw)
        return outputs


class Encoder(nn.Module):
    """conv1 and the stages. It returns the feature maps of every stage, and of every second block within a stage."""

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

    def forward(self, x_NChw: Tensor) -> dict[str, Tensor]:
        """Feature maps by name, shallow to deep: conv1, layer1_blk2, layer1, layer2_blk2, ...

        The last block of a stage has no map: the stage's map is its output after GroupNorm.
        """
        maps = {"conv1": F.relu(self.gn1(self.conv1(x_NChw)))}
        x_NChw = maps["conv1"]
        for i in range(self.num_stages):
            outputs = self.get_submodule(f"stages_{i}")(x_NChw)
            for number in range(2, len(outputs), 2):
                maps[f"layer{i + 1}_blk{number}"] = outputs[number - 1]
            x_NChw = self.get_submodule(f"layer{i + 1}_norm")(outputs[-1])
            maps[f"layer{i + 1}"] = x_NChw
        return maps


class _ConvNormReLU(nn.Module):
    """A 3x3 convolution, GroupNorm and ReLU."""

    def __init__(self, in_channels: int, channels: int, config: LatentMAEConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.gn = _group_norm(channels, config)

    def forward(self, x_NChw: Tensor) -> Tensor:
        return F.relu(self.gn(self.conv(x_NChw)))


class _UpBlock(nn.Module):
    """Upsamples to the size of the skip connection, concatenates both, and reduces them to its width."""

    def __init__(self, in_channels: int, skip_channels: int, config: LatentMAEConfig) -> None:
        super().__init__()
        self.concat_norm_fn = _group_norm(in_channels + skip_channels, config)
        self.proj = _ConvNormReLU(in_channels + skip_channels, skip_channels, config)
        self.refine = _ConvNormReLU(skip_channels, skip_channels, config)

    def forward(self, x_NChw: Tensor, skip_NChw: Tensor) -> Tensor:
        x_NChw = F.interpolate(x_NChw, size=skip_NChw.shape[-2:], mode="bilinear", align_corners=False)
        return self.refine(self.proj(self.concat_norm_fn(torch.cat([x_NChw, skip_NChw], dim=1))))


class Decoder(nn.Module):
    """The path back to the latents: `up43` joins layer4 with layer3, ..., and `up10` joins layer1 with conv1."""

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
        x_NChw = self.bridge(maps[f"layer{self.num_stages}"])
        for level in range(self.num_stages, 0, -1):
            skip_NChw = maps[f"layer{level - 1}"] if level > 1 else maps["conv1"]
            x_NChw = self.get_submodule(f"up{level}{level - 1}")(x_NChw, skip_NChw)
        return self.head(x_NChw)
