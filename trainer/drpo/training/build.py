"""From settings to objects: where a run's parts are put together, for training, sampling and evaluation alike."""

from __future__ import annotations

import os
from typing import Any

from drpo.config import Config
from drpo_rewards import RankResponse


def build_generator(config: Config, *, device: str = "cpu", lora: bool = True) -> Any:
    """The one-step generator, with a fresh adapter where `lora`.

    Its random start comes from torch's global generator.
    """
    import torch

    from drpo.generators.sd_turbo import LoraSettings, OneStepGenerator

    settings = config.model
    return OneStepGenerator.load(
        shapes_asset(settings.generator, "generator"),
        device=device,
        dtype=getattr(torch, settings.dtype),
        lora=LoraSettings(**config.lora.model_dump()) if lora else None,
        gradient_checkpointing=settings.gradient_checkpointing,
    )


def build_feature_map(config: Config, *, device: str = "cpu") -> Any:
    """The frozen feature map."""
    from drpo.method.features import load_feature_map

    settings = config.features
    path = shapes_asset(settings.path, "feature_map") if settings.path else None
    feature_map = load_feature_map(settings.name, path, **settings.options)
    return feature_map.to(device) if hasattr(feature_map, "to") else feature_map


def build_objective(config: Config) -> Any:
    """The objective with its settings checked."""
    from drpo.method.objectives import load_objective

    return load_objective(config.objective.name, config.objective.settings)


class RankWith:
    """A client with this run's choice filled in: rewards or mixture, normalisation, and whether details are wanted."""

    def __init__(self, client: Any, **choice: Any) -> None:
        self._client = client
        self._choice = {name: value for name, value in choice.items() if value is not None}

    async def rank(self, prompt: str, images: Any, **arguments: Any) -> RankResponse:
        """See `drpo.training.ranking.Ranker`."""
        return await self._client.rank(prompt, images, **self._choice, **arguments)

    async def close(self) -> None:
        """Closes the client's connections."""
        await self._client.close()


def build_ranker(config: Config) -> RankWith:
    """A client of the ranking service at `rewards.address`, with the run's choice of rewards."""
    from drpo_rewards.client import AsyncRankingClient

    rewards = config.rewards
    assert rewards.address is not None, "the caller starts the service or names one"
    client = AsyncRankingClient(
        rewards.address,
        api_key=os.environ.get(rewards.api_key_env) if rewards.api_key_env else None,
        timeout_s=rewards.timeout_s,
        max_in_flight=max(8, config.training.groups_in_flight),
        retries=rewards.retries,
    )
    return RankWith(
        client, rewards=rewards.weights, mixture=rewards.mixture, normalize=rewards.normalize, details=rewards.details
    )


def shapes_asset(path: str, kind: str) -> str:
    """The path itself, but for "shapes", which is the embedded generator or feature map."""
    if path != "shapes":
        return path
    from drpo.shapes.assets import feature_map_path, generator_path

    return str(generator_path() if kind == "generator" else feature_map_path())
