"""Optional ways to compute faster, which change results by rounding only."""

from __future__ import annotations

import torch

from drpo.config import TrainingConfig
from drpo.generators.base import OneStepGenerator


def speed_up(generator: OneStepGenerator, settings: TrainingConfig) -> None:
    """Prepares a generator as `training.channels_last`, `training.compile` and `training.tf32` say.

    Call it once, after loading.
    """
    if settings.tf32:
        torch.set_float32_matmul_precision("high")
    for network in generator.networks:
        if settings.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's hints lack it
        if settings.compile:
            network.compile()
