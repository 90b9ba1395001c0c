"""Make clients of the ranking service from the settings of a run: async for training, sync for evaluation."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from drpo.config import Config, RewardsConfig
from drpo.errors import ConfigError
from drpo_rewards import RankResponse
from drpo_rewards.api.contract import PairOptions
from drpo_rewards.client import AsyncRankingClient, RankingClient


def make_ranking_client(rewards: RewardsConfig) -> RankingClient:
    """Makes a client of the service at `rewards.address`, for evaluation.

    Raises:
        ConfigError: `rewards.address` is not set.
    """
    return RankingClient(service_address(rewards), **_connection(rewards))


def make_ranker(config: Config) -> RunRanker:
    """Makes an async client of the service at `rewards.address`, for training. It ranks with the run's rewards.

    Raises:
        ConfigError: `rewards.address` is not set.
    """
    rewards = config.rewards
    in_flight = max(8, config.training.groups_in_flight)
    client = AsyncRankingClient(service_address(rewards), max_in_flight=in_flight, **_connection(rewards))
    return RunRanker(client, rewards)


def service_address(rewards: RewardsConfig) -> str:
    """The address of the running service.

    Raises:
        ConfigError: `rewards.address` is not set.
    """
    if rewards.address is None:
        raise ConfigError("rewards.address is not set: start a ranking service first, and give its address")
    return rewards.address


class RunRanker:
    """Ranks groups with the rewards or the mixture, the normalisation and the details in a run's settings."""

    def __init__(self, client: AsyncRankingClient, rewards: RewardsConfig) -> None:
        self._client = client
        self._rewards = rewards

    async def rank(
        self,
        prompt: str,
        images: np.ndarray,
        *,
        metadata: dict[str, Any] | None = None,
        pairs: PairOptions | None = None,
        request_id: str | None = None,
    ) -> RankResponse:
        """See `drpo.training.ranking.Ranker`."""
        rewards = self._rewards
        return await self._client.rank(
            prompt,
            images,
            rewards=rewards.weights,
            mixture=rewards.mixture,
            normalize=rewards.normalize,
            metadata=metadata,
            pairs=pairs,
            details=rewards.details,
            request_id=request_id,
        )

    async def close(self) -> None:
        """Closes the client's connections."""
        await self._client.close()


def _connection(rewards: RewardsConfig) -> dict[str, Any]:
    return {
        "api_key": os.environ.get(rewards.api_key_env) if rewards.api_key_env else None,
        "timeout_s": rewards.timeout_s,
        "retries": rewards.retries,
    }
