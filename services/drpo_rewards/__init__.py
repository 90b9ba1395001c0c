"""The ranking contract, its client, and the rewards behind it."""

from drpo_rewards.api.contract import GenevalSpec, PairOptions, RankResponse
from drpo_rewards.client import AsyncRankingClient, Group, RankingClient
from drpo_rewards.errors import RewardsError

__all__ = ["AsyncRankingClient", "GenevalSpec", "Group", "PairOptions", "RankResponse", "RankingClient", "RewardsError"]
