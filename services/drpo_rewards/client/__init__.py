"""Who calls a ranking service: one client, synchronous or not, over HTTP, gRPC or a Ray Serve handle.

`asynchronous` is the client, `synchronous` the same for code without asyncio (its event loop runs in `background`);
`transports` are the ways to the service, `retries` says which failures are tried again, and `load` puts a load on a
service.
"""

from drpo_rewards.client.asynchronous import AsyncRankingClient, Group
from drpo_rewards.client.synchronous import RankingClient

__all__ = ["AsyncRankingClient", "Group", "RankingClient"]
