"""PickScore: what people chose on Pick-a-Pic (Kirstain et al., 2023). A CLIP ViT-H/14, trained on their choices."""

from __future__ import annotations

from collections.abc import Sequence

from drpo_rewards.rewards.base import Score, ScoreItem
from drpo_rewards.rewards.clip_model import ClipEmbedder
from drpo_rewards.rewards.weights import label, pick_device, pick_dtype, public_name


class PickScore:
    """Human preference among pictures of one prompt, learned from Pick-a-Pic.

    `exp(logit_scale) * cos(prompt, picture)`, about 18 to 24 with the public weights; tables quote this number.
    """

    license = "MIT"

    def __init__(self, model: str = "yuvalkirstain/PickScore_v1", device: str = "auto", dtype: str = "auto") -> None:
        place = pick_device(device)
        self.clip = ClipEmbedder.load(model, "floor", place, pick_dtype(dtype, place, on_gpu="float16"))
        self.checkpoint = public_name(model)
        self.version = label("pickscore-1", model, self.clip.model.dtype)

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        cosines_N = self.clip.cosines([item.image for item in items], [item.prompt for item in items])
        return [Score(value) for value in (cosines_N * self.clip.scale).tolist()]
