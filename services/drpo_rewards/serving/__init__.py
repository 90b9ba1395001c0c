"""The ranking service on Ray Serve. `start` it on a running Ray; `upgrade` replaces one of its rewards.

config    what a service is made of
start     deploys it: the gateway and its rewards
gateway   from a socket to a question
replica   from a question to scores
operate   what an operator uses before anything starts
app       the same service for clusters that deploy it from a Serve config
"""

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
