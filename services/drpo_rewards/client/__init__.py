"""Clients of a ranking service, for code with and without asyncio, over HTTP, gRPC or a Ray Serve handle.

asynchronous  the client
synchronous   the same client for code without asyncio
background    the event loop that the synchronous client runs on
batch         a flat batch of any size, in requests that a service takes
payloads      how images are prepared for sending
attempts      a call's deadline and its attempts
transports    the ways to reach a service
retries       which failed calls are repeated, and when
load          load tests of a service
"""

from drpo_rewards.client.asynchronous import AsyncRankingClient, Group
from drpo_rewards.client.synchronous import RankingClient

__all__ = ["AsyncRankingClient", "Group", "RankingClient"]
