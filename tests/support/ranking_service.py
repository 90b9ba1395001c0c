"""The ranking service that the integration tests share: its configuration, and what is sent to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from ray.util.state import list_actors

from drpo_rewards import RankResponse, serving

TRANSPORTS = ["serve", "http", "grpc"]
PICTURES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
REDS = PICTURES.astype(float).mean(axis=(1, 2)) @ [1, -0.5, -0.5]

CONFIG = {
    "rewards": {
        "redness": {"type": "support.service_rewards:RednessOf", "batch_size": 32, "batch_wait_s": 0.02},
        "darkness": {"type": "support.service_rewards:Darkness"},
        "corner": {"type": "support.service_rewards:Corner"},
        "judge": {"type": "support.service_rewards:BrighterOf", "batch_size": 4},
        "failing": {"type": "support.service_rewards:Failing", "deadline_s": 200},
        "hanging": {"type": "support.service_rewards:Failing", "deadline_s": 4},
        "busy": {
            "type": "support.service_rewards:RednessOf",
            "options": {"delay_s": 0.4},
            "max_ongoing": 1,
            "max_queued": 1,
        },
    },
    "mixtures": {"default": {"rewards": {"redness": 1.0}}, "both": {"rewards": {"redness": 3.0, "darkness": 1.0}}},
}
KEY = "a-key-of-the-tests"


def config(**changes: Any) -> serving.ServiceConfig:
    settings = serving.ServiceConfig.model_validate(CONFIG | changes)
    for reward in settings.rewards.values():
        reward.num_cpus = 0.1
    return settings


def address(service: serving.RunningService, transport: str) -> str:
    found = {"serve": service.handle_address, "http": service.http_url, "grpc": service.grpc_address}[transport]
    assert found is not None
    return found


def replica_pid(name: str, application: str = "ranking") -> int:
    """The process of a deployment's only replica. Raises IndexError where it has none just now."""
    filters = [("state", "=", "ALIVE"), ("class_name", "=", f"ServeReplica:{application}:{name}")]
    # The address says which Ray: others may run on this machine.
    return list_actors(ray.get_runtime_context().gcs_address, filters=filters)[0].pid


def timeless(response: RankResponse) -> RankResponse:
    return response.model_copy(update={"timings_ms": {}})
