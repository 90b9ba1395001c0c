"""The embedded CLIP as a reward of a ranking service. The service `shapes-clip` has it."""

from __future__ import annotations

from typing import Any

from drpo.shapes.assets import clip_path
from drpo_rewards.rewards.clip import ClipScore
from drpo_rewards.rewards.files.model_files import ModelFiles


class EmbeddedClip(ClipScore):
    """Agreement of picture and prompt in the world of shapes: the cosine of their vectors, -1 to 1."""

    def __init__(self, device: str = "auto", dtype: str = "auto", *, headers_only: bool = False) -> None:
        super().__init__(str(clip_path()), device, dtype, headers_only=headers_only)

    @classmethod
    def files(cls, **options: Any) -> tuple[ModelFiles, ...]:
        return ()  # the package contains them
