"""The ranking service on Ray Serve. `start` it on a running Ray; `upgrade` replaces one of its rewards.

config    the settings of a service
ports     who has a port, and taking one; listeners takes those of a service
start     deploys the gateway and its rewards
gateway   turns requests into questions to the rewards
replica   turns questions into scores
operate   checks a machine before anything starts
app       the same service for clusters that deploy it from a Serve config
"""

import sys

if sys.version_info < (3, 11):
    from drpo_rewards.errors import ConfigError

    raise ConfigError("the service needs Python 3.11 or newer; on Python 3.10 only the client works")

from drpo_rewards.serving.config import MemoryConfig, MixtureConfig, RewardConfig, ServiceConfig
from drpo_rewards.serving.limits import LimitsConfig
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
