"""Real replicas in this process, behind the few methods of Ray Serve's handle that the gateway uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.gateway import Gateway
from drpo_rewards.serving.gateway.listen import Listeners
from drpo_rewards.serving.listeners import free_port
from drpo_rewards.serving.replica.replica import RewardReplica


class ReplicaHandle:
    """Calls a RewardReplica, and records each call as its method and the number of images that it sent."""

    def __init__(self, reward: str, name: str = "tested") -> None:
        self._name = name
        self.calls: list[tuple[str, int]] = []
        self.delay_s = 0.0  # of each call
        self.deploy(reward)

    def deploy(self, reward: str) -> None:
        """Put another reward in the place of the present one, as an upgrade does."""
        self._replica = RewardReplica(self._name, {"type": reward})

    def options(self, **_: Any) -> ReplicaHandle:
        return self

    def __getattr__(self, method: str) -> _Method:
        return _Method(self, method)

    async def _run(self, method: str, arguments: tuple[Any, ...]) -> Any:
        images = arguments[0] if arguments and isinstance(arguments[0], Sequence | np.ndarray) else ()
        self.calls.append((method, len(images)))
        await asyncio.sleep(self.delay_s)
        found = getattr(self._replica, method)(*arguments)
        return await found if asyncio.iscoroutine(found) else found


class _Method:
    def __init__(self, handle: ReplicaHandle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *arguments: Any) -> Any:
        return self._handle._run(self._name, arguments)


def local_gateway(deadline_s: float = 30.0, **rewards: str) -> tuple[Gateway, dict[str, ReplicaHandle]]:
    """A gateway over rewards (name to type) whose replicas run in this process, and their handles."""
    handles = {name: ReplicaHandle(kind, name) for name, kind in rewards.items()}
    config = ServiceConfig.model_validate(
        {"rewards": {name: {"type": kind, "deadline_s": deadline_s} for name, kind in rewards.items()}}
    )
    return Gateway(config, [], handles, "tested"), handles  # type: ignore[arg-type]


@asynccontextmanager
async def listening(
    application: str = "ranking", http: int | None = 0, grpc: int | None = 0
) -> AsyncIterator[tuple[Gateway, dict[str, ReplicaHandle], int | None, int | None]]:
    """A gateway with one reward that listens: the gateway, its handles, its ports. None for no such listener."""
    gateway, handles = local_gateway(redness="support.rewards:Redness")
    http, grpc = (free_port() if port == 0 else port for port in (http, grpc))
    listeners = Listeners(gateway, application, http, grpc)
    await listeners.open()
    try:
        yield gateway, handles, http, grpc
    finally:
        await listeners.close()
