"""The ranking service on Ray Serve: `start` it on a live Ray, `RunningService.stop` ends it."""

from drpo_rewards.serving.config import LimitsConfig, MixtureConfig, RewardConfig, ServiceConfig
from drpo_rewards.serving.service import RunningService, start

__all__ = ["LimitsConfig", "MixtureConfig", "RewardConfig", "RunningService", "ServiceConfig", "start"]
