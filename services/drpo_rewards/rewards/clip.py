"""CLIP score: how well a picture and its prompt agree (Radford et al., 2021; Hessel et al., 2021)."""

from __future__ import annotations

from drpo_rewards.rewards.files.model_files import TOKENIZER_SETTINGS, ModelFiles
from drpo_rewards.rewards.shared.clip_model import FILES
from drpo_rewards.rewards.shared.clip_similarity import ClipSimilarity

MODEL = ModelFiles("model", "openai/clip-vit-large-patch14", FILES, "MIT", 1.71, TOKENIZER_SETTINGS)


class ClipScore(ClipSimilarity):
    """Agreement of picture and prompt: the cosine of their CLIP vectors.

    -1 to 1, about 0.15 to 0.35 with the public ViT-L/14. Published tables multiply it by 100.
    """

    model_files = MODEL
    label = "clip-1"
    license = MODEL.license
    range = (-1.0, 1.0)
