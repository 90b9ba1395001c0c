"""The ranking service on Ray Serve: `start` it on a live Ray; `upgrade` replaces one reward of it."""

from drpo_rewards.serving.config import LimitsConfig, MemoryConfig, MixtureConfig, RewardConfig, ServiceConfig
from drpo_rewards.serving.start import RunningService, start, upgrade

__all__ = [
    "LimitsConfig",
    "MemoryConfig",
    "MixtureConfig",
    "RewardConfig",
    "RunningService",
    "ServiceConfig",
    "start",
    "upgrade",
]
