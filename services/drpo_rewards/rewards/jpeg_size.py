"""How small, or how large, the picture is as a JPEG file: DDPO's compressibility and incompressibility."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import ClassVar, Literal

from PIL import Image

from drpo_rewards.api.contract import Metric
from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem
from drpo_rewards.rewards.files.model_files import ModelFiles


class JpegSize:
    """The size of the picture as a JPEG file, in kB (10^3 bytes); without a prompt and without weights.

    Small files have smooth, simple pictures, large ones have noise and fine texture. DDPO (Black et al. 2023) trains
    on both. Only pictures of one size can be compared.

    Args:
        prefer: "small" scores minus the kB, DDPO's compressibility; "large" scores the kB, its incompressibility.
        quality: of the JPEG file, 1 to 95; DDPO's is 95.
    """

    metrics = (Metric(name="kilobytes", description="size as a JPEG file", unit="kB"),)
    metadata_schema: ClassVar = READS_NONE

    def __init__(self, prefer: Literal["small", "large"] = "small", quality: int = 95) -> None:
        if prefer not in ("small", "large"):
            raise ConfigError(f"jpeg_size: prefer is {prefer!r}; write small or large")
        if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 95:
            raise ConfigError(f"jpeg_size: quality is {quality!r}; write a whole number from 1 to 95")
        self.sign, self.quality = (-1 if prefer == "small" else 1), quality
        self.version = f"jpeg_size-1/{prefer}/{quality}"
        self.metrics = (self.metrics[0].model_copy(update={"higher_is_better": prefer == "large"}),)

    @staticmethod
    def files(**options: object) -> tuple[ModelFiles, ...]:
        return ()

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        sizes = [self._count_bytes(item) / 1000 for item in items]
        return [Score(self.sign * size, {"kilobytes": size}) for size in sizes]

    def _count_bytes(self, item: ScoreItem) -> int:
        file = io.BytesIO()
        Image.fromarray(item.image).save(file, "JPEG", quality=self.quality)
        return file.tell()
