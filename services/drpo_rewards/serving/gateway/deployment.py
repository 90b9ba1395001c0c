"""The gateway as a Ray Serve deployment: HTTP, gRPC and handles lead to the same Gateway."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from drpo_rewards.api.contract import parse
from drpo_rewards.operations import OPERATIONS
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.call import Origin
from drpo_rewards.serving.gateway.gateway import Gateway
from drpo_rewards.serving.gateway.grpc import GrpcMethods
from drpo_rewards.serving.gateway.http import build_app
from drpo_rewards.serving.gateway.memory import return_large_buffers


class GatewayDeployment(GrpcMethods):
    """What Ray Serve starts in each gateway replica.

    Args:
        config: fields of the ServiceConfig.
        key_digests: SHA-256 of each accepted API key.
        rewards: a handle, or the name of the application of a reward with `own_app`.
    """

    def __init__(
        self, config: dict[str, Any], key_digests: list[bytes], rewards: dict[str, DeploymentHandle | str]
    ) -> None:
        return_large_buffers()
        name = serve.get_replica_context().replica_tag
        self.gateway = Gateway(ServiceConfig.model_validate(config), key_digests, rewards, name)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self.gateway)

    async def call(self, images: Sequence[np.ndarray], operation: str, options: dict[str, Any]) -> dict[str, Any]:
        """Perform an operation for a handle.

        Args:
            images: (H, W, 3) uint8 arrays, or one array (K, H, W, 3).
            operation: its name.
            options: fields of its options.

        Returns:
            The fields of its response.
        """
        found = OPERATIONS[operation]

        async def read(allowance: Allowance) -> tuple[Any, Sequence[np.ndarray]]:
            return parse(found.options, options), images  # decoded already, in memory that is not the gateway's

        response = await self.gateway.perform(found, Origin("serve", uuid.uuid4().hex), read)
        return response.model_dump()

    async def models(self) -> list[dict[str, Any]]:
        """List every reward and mixture, for a handle."""
        return (await self.gateway.list_models()).model_dump()["models"]

    async def ready(self) -> dict[str, Any]:
        """Say whether every reward can score just now, for a handle."""
        return (await self.gateway.probe_rewards()).model_dump()
