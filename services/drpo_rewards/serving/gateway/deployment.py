"""The gateway as a Ray Serve deployment: its own listeners, and handles, lead to the same Gateway."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray import serve
from ray.serve.handle import DeploymentHandle

from drpo_rewards.api.contract import parse
from drpo_rewards.cluster.handles import PlacedImages
from drpo_rewards.cluster.logs import let_logs_take_any_text
from drpo_rewards.cluster.memory import return_free_memory_when_idle
from drpo_rewards.operations import OPERATIONS
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.call import Origin
from drpo_rewards.serving.gateway.gateway import Gateway
from drpo_rewards.serving.gateway.listen import Listeners

# Seconds after which a thread that computes gives Python's lock to one that waits. Python's default is 5 ms.
LOCK_S = 0.001


class GatewayDeployment:
    """The class that Ray Serve builds in each gateway replica, and whose end it announces by `__del__`.

    Args:
        config: the fields of the ServiceConfig.
        key_digests: SHA-256 of each accepted API key.
        rewards: by name, each reward's handle, or the name of the Serve application of a reward with `own_app`.
        http_port, grpc_port: where it listens; None for no such listener.
    """

    def __init__(
        self,
        config: dict[str, Any],
        key_digests: list[bytes],
        rewards: dict[str, DeploymentHandle | str],
        http_port: int | None,
        grpc_port: int | None,
    ) -> None:
        let_logs_take_any_text()
        sys.setswitchinterval(LOCK_S)
        return_free_memory_when_idle()
        replica = serve.get_replica_context()
        self.gateway = Gateway(ServiceConfig.model_validate(config), key_digests, rewards, replica.replica_tag)
        self._listeners = Listeners(self.gateway, replica.app_name, http_port, grpc_port)
        self._opening = asyncio.get_running_loop().create_task(self._listeners.open())

    async def check_health(self) -> None:
        """Raise an error if it does not listen. Serve calls this after the start, and again and again."""
        await asyncio.shield(self._opening)
        self._listeners.check()

    async def __del__(self) -> None:
        """End the listeners after the calls in progress. Serve awaits this before it ends the process."""
        self._opening.cancel()
        await self._listeners.close()

    async def call(
        self, images: Sequence[np.ndarray] | PlacedImages, name: str, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Perform an operation for a handle.

        Args:
            images: (H, W, 3) uint8 arrays, or one array (K, H, W, 3), or where they are.
            name: the operation's name.
            options: the fields of its options.

        Returns:
            The fields of its response.
        """
        operation = OPERATIONS[name]

        async def read(allowance: Allowance) -> tuple[Any, Sequence[np.ndarray]]:
            # They are decoded already, outside the gateway's memory.
            opened = await images.open() if isinstance(images, PlacedImages) else images
            return parse(operation.options, options), opened

        response = await self.gateway.perform(operation, Origin("serve", uuid.uuid4().hex), read)
        return response.model_dump()

    async def models(self) -> list[dict[str, Any]]:
        """List every reward and mixture, for a handle."""
        return (await self.gateway.list_models()).model_dump()["models"]

    async def ready(self) -> dict[str, Any]:
        """Let every reward score one image, for a handle."""
        return (await self.gateway.probe_rewards()).model_dump()
