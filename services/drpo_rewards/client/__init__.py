"""Clients of a ranking service: one call interface over HTTP, gRPC and Ray Serve handles, async and sync."""

from drpo_rewards.client.asynchronous import AsyncRankingClient, Group, RankingClient

__all__ = ["AsyncRankingClient", "Group", "RankingClient"]
