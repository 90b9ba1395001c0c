"""Build the generator, the feature map, the objective and its reward of a run from its settings.

Training, sampling and evaluation all use these functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from drpo.config import Config, LoraConfig
from drpo.errors import ConfigError
from drpo.shapes.embedded import feature_map_source, generator_source

if TYPE_CHECKING:
    from drpo.generators import OneStepGenerator
    from drpo.method.features import FeatureMap
    from drpo.method.objectives import Objective
    from drpo.training.reward_gradient import RewardGradient


def build_generator(config: Config, *, device: str = "cpu", adapter: bool = True) -> OneStepGenerator:
    """The one-step generator, with what is to be trained if `adapter` is true.

    The initial values of a LoRA adapter come from `lora.adapter`, else from torch's global random generator.
    """
    import torch

    from drpo.generators import load_generator
    from drpo.training.speed import speed_up

    settings, lora = config.model, config.lora if adapter else None
    start = start_of(lora)
    generator = load_generator(
        generator_source(settings.generator),
        device=device,
        dtype=getattr(torch, settings.dtype),
        lora=lora if start is None else None,
        whole=adapter and config.lora is None,
        gradient_checkpointing=settings.gradient_checkpointing,
        variant=settings.variant,
        vae=settings.vae,
        unet=settings.unet,
    )
    if start is not None:
        generator.load_adapter(start)
    speed_up(generator, config.training)
    return generator


def start_of(lora: LoraConfig | None) -> Path | None:
    """The file of the adapter that training starts from; None if it starts from a fresh one.

    Raises:
        ConfigError: where `lora.adapter` says there is no adapter, or a whole U-Net.
    """
    from drpo.generators.unet_file import find_unet
    from drpo.training.run_folder import locate_adapter

    if lora is None or lora.adapter is None:
        return None
    file = locate_adapter(Path(lora.adapter))
    if find_unet(file) is not None:
        raise ConfigError(f"{file} is a whole U-Net: train on from it with --model.unet")
    return file


def build_feature_map(
    config: Config, objective: Objective, generator: OneStepGenerator, *, device: str = "cpu"
) -> FeatureMap | None:
    """The frozen feature map; None if the objective needs no features."""
    needs = objective.needs
    return load_features(config, generator, device=device) if needs.features or needs.reference_features else None


def load_features(config: Config, generator: OneStepGenerator, *, device: str = "cpu") -> FeatureMap:
    """The frozen feature map of the settings, whatever the objective."""
    from drpo.method.features import load_feature_map

    settings = config.features
    return load_feature_map(
        settings.name,
        feature_map_source(settings.path or None),
        generator=generator,
        device=device,
        **settings.options,
    )


def build_objective(config: Config) -> Objective:
    """The objective, with its settings checked."""
    from drpo.method.objectives import load_objective

    return load_objective(config.objective.name, config.objective.settings)


def asks_rewards(config: Config) -> bool:
    """Whether a run needs a ranking service: for its training or for its evaluation."""
    return config.evaluation.enabled or ranks_candidates(config)


def ranks_candidates(config: Config) -> bool:
    """Whether training needs a ranking service: the objective takes rankings, and no preferences are given instead."""
    return config.offline is None and build_objective(config).needs.ranking


def build_reward_gradient(
    objective: Objective, generator: OneStepGenerator, *, device: str = "cpu"
) -> RewardGradient | None:
    """The differentiable reward of the objective's settings; None if it needs none."""
    if not objective.needs.reward_gradient:
        return None
    from drpo.training import reward_gradient

    return reward_gradient.build_reward_gradient(objective.settings.reward, generator, device)
