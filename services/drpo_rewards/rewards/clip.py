"""CLIP score: how well a picture and its prompt agree (Radford et al., 2021; Hessel et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drpo_rewards.rewards.base import Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.parts import TOKENIZER_SETTINGS, Part
from drpo_rewards.rewards.files.weights import label, pick_device, pick_dtype, public_name
from drpo_rewards.rewards.shared.clip_model import FILES, ClipEmbedder, PreparedClip

MODEL = Part("model", "openai/clip-vit-large-patch14", FILES, "MIT", 1.71, TOKENIZER_SETTINGS)


class ClipScore(StagedReward):
    """Agreement of picture and prompt: the cosine of their CLIP vectors.

    About 0.15 to 0.35 with the public ViT-L/14; tables quote it times 100.
    """

    license = MODEL.license
    range = (-1.0, 1.0)

    def __init__(self, model: str = MODEL.repo, device: str = "auto", dtype: str = "auto") -> None:
        place = pick_device(device)
        self.clip = ClipEmbedder.load(find(MODEL, model), "floor", place, pick_dtype(dtype, place, on_gpu="float16"))
        self.checkpoint = public_name(model)
        self.version = label("clip-1", model, self.clip.model.dtype)

    @staticmethod
    def parts(**options: Any) -> tuple[Part, ...]:
        return (MODEL,)

    def prepare(self, items: Sequence[ScoreItem]) -> PreparedClip:
        return self.clip.prepare([item.image for item in items], [item.prompt for item in items])

    def score_prepared(self, prepared: PreparedClip) -> list[Score]:
        cosines_N = self.clip.cosines(prepared).clamp(-1, 1)  # rounding may pass 1 by a hair
        return [Score(value) for value in cosines_N.tolist()]
