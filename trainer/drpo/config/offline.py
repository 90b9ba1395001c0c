"""The section of a config for offline training: images that people preferred, instead of rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from drpo.config.section import Section


class OfflineConfig(Section):
    """Chosen and rejected images of a data set, which take the place of a ranking. No reward service is needed.

    Example:
        offline:
          source: pickapic_v2
          path: data/pickapic_v2   # a folder of parquet files; null: the data set on the hub
          split: train
          neighbours: 4
    """

    source: str = Field(default="file", description="a source of preferences; `drpo preferences list` shows all")
    path: str | None = Field(
        default=None,
        description="with source file: the file; with source pickapic_v2: a folder of parquet files, or a data set of "
        "the hub, ORG/NAME[@REVISION]; null: the public one",
    )
    split: str = Field(default="train", description="the split, if the source has splits")
    cache: Path | None = Field(
        default=None,
        description="the folder of the encoded images, which every worker must reach; null: .latents in run.folder",
    )
    posterior: Literal["mode", "sample"] = Field(
        default="mode", description="which latent of an image to take: the most probable one, or one drawn at random"
    )
    batch_size: int = Field(default=8, ge=1, description="images that are encoded at once")
    images_per_side: int = Field(
        default=16,
        ge=1,
        description="chosen images, and also rejected ones, of a prompt in one step; of more, some are drawn at random",
    )
    neighbours: int = Field(
        default=0,
        ge=0,
        description="other prompts whose images join the supports, nearest by text, weighted by similarity; not in the "
        "paper",
    )
    own_samples: Literal["none", "add", "instead"] = Field(
        default="none",
        description="own candidates as supports, ranked by their distances to the chosen and rejected images: none, in "
        "addition to these images, or instead of them; not in the paper",
    )
    own_share: float = Field(
        default=0.5, gt=0, le=0.5, description="share of the candidates that become positives, and also negatives"
    )
