"""The base class of the rewards `clip` and `pickscore`: the similarity of picture and prompt, by a CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.files.weights import pick_device, pick_dtype, public_name, version_label
from drpo_rewards.rewards.shared.clip_model import ClipEmbedder, PreparedClip


class ClipSimilarity(StagedReward):
    """The cosine of the CLIP vectors of picture and prompt, times a scale.

    Subclasses set `model_files`, `label` (the start of the version, e.g. "clip-1") and `license`, and may override
    `to_scores`.
    """

    metadata_schema: ClassVar = READS_NONE
    model_files: ClassVar[ModelFiles]
    label: ClassVar[str]

    def __init__(
        self, model: str | None = None, device: str = "auto", dtype: str = "auto", *, headers_only: bool = False
    ) -> None:
        model = model or self.model_files.repo
        torch_device = pick_device(device, headers_only)
        torch_dtype = pick_dtype(dtype, torch_device, on_gpu="float16")
        folder = find(self.model_files, model)
        self.clip = ClipEmbedder.load(folder, "floor", torch_device, torch_dtype, headers_only)
        self.checkpoint = public_name(model)
        self.version = version_label(self.label, model, torch_dtype)

    @classmethod
    def files(cls, **options: Any) -> tuple[ModelFiles, ...]:
        return (cls.model_files,)

    def prepare(self, items: Sequence[ScoreItem]) -> PreparedClip:
        return self.clip.prepare([item.image for item in items], [item.prompt for item in items])

    def score_prepared(self, prepared: PreparedClip) -> list[Score]:
        cosines_N = self.clip.cosines(self.clip.embed_crops(prepared.pixels), prepared.ids_PT, prepared.rows_N)
        return [Score(value) for value in self.to_scores(cosines_N).tolist()]

    def score_differentiably(self, images_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.to_scores(self.clip.cosines(self.clip.embed_cropped(images_N3HW), *self.clip.tokenize(prompts)))

    def to_scores(self, cosines_N: Tensor) -> Tensor:
        """Compute (N,) scores from (N,) cosines: here the cosines themselves."""
        return cosines_N.clamp(-1, 1)  # rounding may exceed 1 by a little
