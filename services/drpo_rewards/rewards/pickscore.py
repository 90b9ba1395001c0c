"""PickScore: what people preferred on Pick-a-Pic (Kirstain et al., 2023). A CLIP ViT-H/14, trained on their choices."""

from __future__ import annotations

from torch import Tensor

from drpo_rewards.rewards.files.model_files import TOKENIZER_SETTINGS, ModelFiles
from drpo_rewards.rewards.shared.clip_model import FILES
from drpo_rewards.rewards.shared.clip_similarity import ClipSimilarity

MODEL = ModelFiles("model", "yuvalkirstain/PickScore_v1", FILES, "MIT", 3.94, TOKENIZER_SETTINGS)


class PickScore(ClipSimilarity):
    """Human preference among pictures of one prompt, learned from Pick-a-Pic.

    `exp(logit_scale) * cos(prompt, picture)`, about 18 to 24 with the public weights.
    """

    model_files = MODEL
    label = "pickscore-1"
    license = MODEL.license

    def to_scores(self, cosines_N: Tensor) -> Tensor:
        """Compute (N,) scores from (N,) cosines: each times CLIP's scale."""
        return cosines_N * self.clip.scale
