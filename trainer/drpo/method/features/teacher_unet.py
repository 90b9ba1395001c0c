"""The frozen reference U-Net itself as a feature map over latents: the activations of some of its blocks.

It sees the clean latents with a little noise at an early timestep, together with the prompt. It needs no files, because
the generator holds its weights. Gradients flow through the reference into the latents.

Two published variants differ in the noise:

paper      One noise in an optimizer step, for all latents. So equal latents have equal features.
released   The authors' trainer draws a noise for each latent and each call, even for the same latents as candidates,
           as supports and as reference.

The paper reports no row for this map; its settings are those of the authors' launch command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from drpo.errors import ConfigError
from drpo.generators.base import Layout, OneStepGenerator
from drpo.method.drift import Variant
from drpo.method.features.base import FeatureContext, FeatureSettings, ListedFeatureMap, draw_noise


class TeacherUNetSettings(FeatureSettings):
    """Which activations of the reference U-Net are used.

    Example:
        features:
          name: teacher_unet
          path: null
          options:
            blocks: [mid_block]
            pool: 2
    """

    variant: Variant = Field(
        default="paper", description="paper: one noise per step; released: another one for each latent"
    )
    blocks: tuple[str, ...] = Field(
        default=("down_blocks.2", "mid_block", "up_blocks.0"),
        min_length=1,
        description="the blocks whose output is a feature",
    )
    noise: float = Field(default=0.1, ge=0, description="standard deviation of the noise added to the latents")
    timestep: int = Field(default=100, ge=0, le=999, description="the timestep that the U-Net is told, of 1000")
    pool: int = Field(default=4, ge=1, description="side of the squares over which a block's output is averaged")


class TeacherUNetFeatures(ListedFeatureMap):
    """A generator's frozen U-Net as a feature map over latents. Each block gives one token.

    Args:
        generator: its adapter is off while features are computed.
        settings: which blocks, and what they see; None: the defaults.
    """

    settings_class = TeacherUNetSettings
    weights = "generator"

    def __init__(self, generator: OneStepGenerator, settings: TeacherUNetSettings | None = None) -> None:
        self.generator = generator
        self.settings = settings or TeacherUNetSettings()

    @classmethod
    def check(cls, settings: TeacherUNetSettings, path: Path | None, layout: Layout | None) -> None:
        """See `ListedFeatureMap.check`."""
        if layout is None:
            return
        for block in settings.blocks:
            if block not in layout.blocks:
                raise ConfigError(
                    f"teacher_unet: the generator's U-Net has no block {block!r}; its blocks are "
                    f"{', '.join(layout.blocks)}"
                )
            if min(layout.blocks[block]) < settings.pool:
                raise ConfigError(
                    f"teacher_unet: the output of {block} has {layout.blocks[block]} locations, fewer than "
                    f"features.options.pool ({settings.pool})"
                )

    def of_latents(self, latents_NChw: Tensor, context: FeatureContext) -> dict[str, Tensor]:
        """The pooled activations {block: (N, 1, D)} of latents (N, C, h, w)."""
        released = self.settings.variant == "released"
        shape = (len(latents_NChw) if released else 1, *latents_NChw.shape[1:])
        noise_NChw = draw_noise(shape, context.call_seed if released else context.step_seed, latents_NChw)
        noisy_NChw = latents_NChw + self.settings.noise * noise_NChw
        outputs: dict[str, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(self.generator.reference())
            unet = self.generator.unet
            stack.enter_context(_without_checkpoints(unet))
            for block in self.settings.blocks:
                stack.enter_context(_recording(unet.get_submodule(block), block, outputs))
            self.generator.predict_noise(noisy_NChw, self.settings.timestep, context.conditions)
        size = self.settings.pool
        return {block: F.avg_pool2d(outputs[block], size).flatten(1).unsqueeze(1) for block in self.settings.blocks}


@contextmanager
def _recording(module: nn.Module, name: str, outputs: dict[str, Tensor]) -> Iterator[None]:
    """Within this block the output of a module, or the first one of several, is kept under a name."""

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs[name] = output[0] if isinstance(output, tuple) else output

    handle = module.register_forward_hook(record)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _without_checkpoints(unet: nn.Module) -> Iterator[None]:
    """Within this block gradient checkpointing is off.

    A checkpoint computes again in the backward pass, when the adapter is on again, so its gradient would be wrong.
    """
    modules: list[Any] = [module for module in unet.modules() if getattr(module, "gradient_checkpointing", False)]
    for module in modules:
        module.gradient_checkpointing = False
    try:
        yield
    finally:
        for module in modules:
            module.gradient_checkpointing = True
