"""CLIP score: how well a picture and its prompt agree (Radford et al., 2021; Hessel et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.clip_model import ClipEmbedder
from drpo_rewards.rewards.weights import label, pick_device, pick_dtype, public_name


class ClipScore:
    """Agreement of picture and prompt: the cosine of their CLIP vectors.

    About 0.15 to 0.35 with the public ViT-L/14; tables quote it times 100.
    """

    license = "MIT"
    range = (-1.0, 1.0)

    def __init__(self, model: str = "openai/clip-vit-large-patch14", device: str = "auto", dtype: str = "auto") -> None:
        place = pick_device(device)
        self.clip = ClipEmbedder.load(model, "floor", place, pick_dtype(dtype, place, on_gpu="float16"))
        self.checkpoint = public_name(model)
        self.version = label("clip-1", model, self.clip.model.dtype)

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        cosines_N = self.clip.cosines([item.image for item in items], [item.prompt for item in items])
        return [Score(value) for value in cosines_N.clamp(-1, 1).tolist()]  # rounding may pass 1 by a hair
