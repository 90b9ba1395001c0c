"""Aesthetic score: how pleasing a picture is, whatever its prompt (LAION's improved predictor, Schuhmann 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards import clip as clip_reward
from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.files.weights import (
    load_strictly,
    pick_device,
    pick_dtype,
    public_name,
    read_tensors,
    version_label,
)
from drpo_rewards.rewards.shared.clip_model import ClipEmbedder
from drpo_rewards.rewards.shared.linear_head import LinearHead

HEAD = "sac+logos+ava1-l14-linearMSE.pth"
MODEL = ModelFiles("model", "camenduru/improved-aesthetic-predictor", (((HEAD,),),), "Apache-2.0", 0.004)
CLIP = replace(clip_reward.MODEL, option="clip")

_RELU_HEAD = "layers.11.weight"


class Aesthetic(StagedReward):
    """How pleasing a picture is, whatever its prompt: a linear head on CLIP ViT-L/14.

    About 1 to 10, mostly 4 to 7.

    Args:
        model: the head's file, or the folder or hub id that has it.
        clip: the folder or hub id of the CLIP under the head; by default the one in `model`, otherwise OpenAI's.
        device, dtype: see `files/weights.py`.
        headers_only: see `files/weights.py`.
    """

    metadata_schema: ClassVar = READS_NONE
    license = MODEL.license

    def __init__(
        self,
        model: str = MODEL.repo,
        clip: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        *,
        headers_only: bool = False,
    ) -> None:
        torch_device = pick_device(device, headers_only)
        torch_dtype = pick_dtype(dtype, torch_device, on_gpu="float16")
        clip = CLIP.source({"model": model, "clip": clip})
        path = Path(model) if Path(model).is_file() else find(MODEL, model) / HEAD
        self.head = read_head(path, headers_only).to(torch_device)
        # The original preprocesses with OpenAI's package, whose crop rounds.
        self.clip = ClipEmbedder.load(find(CLIP, clip), "round", torch_device, torch_dtype, headers_only)
        width = self.clip.model.config.projection_dim
        if self.head.width != width:
            raise WeightsError(f"{path} needs vectors of {self.head.width} numbers, but those of {clip} have {width}")
        self.checkpoint = public_name(model)
        self.version = version_label("aesthetic-1", model, torch_dtype)

    @staticmethod
    def files(**options: Any) -> tuple[ModelFiles, ...]:
        return (CLIP,) if Path(options.get("model") or "").is_file() else (MODEL, CLIP)

    def prepare(self, items: Sequence[ScoreItem]) -> Tensor:
        return self.clip.crop_images([item.image for item in items])

    @torch.inference_mode()
    def score_prepared(self, prepared: Tensor) -> list[Score]:
        scores_N = self.head(self.clip.embed_crops(prepared))
        return [Score(value) for value in scores_N.tolist()]

    def score_differentiably(self, images_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.head(self.clip.embed_cropped(images_N3HW))


def read_head(path: Path, headers_only: bool = False) -> LinearHead:
    """Read the head in a file of the public layout; its first layer gives its width. Raises WeightsError."""
    tensors = read_tensors(path, headers_only=headers_only)
    if _RELU_HEAD in tensors:
        raise WeightsError(f"{path} is the head with activations (ava+logos-l14-reluMSE); this reward needs {HEAD}")
    first = tensors.get("layers.0.weight")
    head = LinearHead(first.shape[1] if first is not None and first.ndim == 2 else 768)
    load_strictly(head, tensors, path, headers_only)
    return head.eval().requires_grad_(False)
