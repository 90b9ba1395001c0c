"""PickScore: what people chose on Pick-a-Pic (Kirstain et al., 2023). A CLIP ViT-H/14, trained on their choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drpo_rewards.rewards.base import Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.parts import TOKENIZER_SETTINGS, Part
from drpo_rewards.rewards.files.weights import label, pick_device, pick_dtype, public_name
from drpo_rewards.rewards.shared.clip_model import FILES, ClipEmbedder, PreparedClip

MODEL = Part("model", "yuvalkirstain/PickScore_v1", FILES, "MIT", 3.94, TOKENIZER_SETTINGS)


class PickScore(StagedReward):
    """Human preference among pictures of one prompt, learned from Pick-a-Pic.

    `exp(logit_scale) * cos(prompt, picture)`, about 18 to 24 with the public weights; tables quote this number.
    """

    license = MODEL.license

    def __init__(self, model: str = MODEL.repo, device: str = "auto", dtype: str = "auto") -> None:
        place = pick_device(device)
        self.clip = ClipEmbedder.load(find(MODEL, model), "floor", place, pick_dtype(dtype, place, on_gpu="float16"))
        self.checkpoint = public_name(model)
        self.version = label("pickscore-1", model, self.clip.model.dtype)

    @staticmethod
    def parts(**options: Any) -> tuple[Part, ...]:
        return (MODEL,)

    def prepare(self, items: Sequence[ScoreItem]) -> PreparedClip:
        return self.clip.prepare([item.image for item in items], [item.prompt for item in items])

    def score_prepared(self, prepared: PreparedClip) -> list[Score]:
        return [Score(value) for value in (self.clip.cosines(prepared) * self.clip.scale).tolist()]
