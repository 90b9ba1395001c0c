"""The ranking service as application builders, for clusters that deploy it themselves: `serve deploy`, KubeRay.

Named in a Serve config by `import_path: drpo_rewards.serving.app:ranking`; its `args` are a ServiceConfig. Ports and
addresses are the Serve config's business. A reward with `own_app` has an entry of its own, `...app:reward`.
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import ValidationError
from ray import serve

from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.config import RewardConfig, ServiceConfig, explain
from drpo_rewards.serving.start import build, build_reward

API_KEYS_FILE = "DRPO_API_KEYS_FILE"


def ranking(args: dict[str, Any]) -> serve.Application:
    """The application of these `args`.

    A cluster's listener is meant for other machines, so API keys are asked for unless `allow_no_auth` says otherwise:
    those of `api_keys_file`, of the file that $DRPO_API_KEYS_FILE names, or of $DRPO_REWARDS_API_KEYS. Raises
    ConfigError.
    """
    given = {"host": "0.0.0.0", "api_keys_file": os.environ.get(API_KEYS_FILE) or None} | args
    try:
        settings = ServiceConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"args of the Serve application: {explain(error)}") from None
    return build(settings, settings.api_key_digests())


def reward(args: dict[str, Any]) -> serve.Application:
    """One reward with `own_app`: its `name` and the fields of its RewardConfig. Raises ConfigError.

    Its application must be called `ranking-NAME`, which is where the gateway looks for it, and have no route.
    """
    settings = dict(args)
    name = settings.pop("name", None)
    if not isinstance(name, str) or not name:
        raise ConfigError("args of a reward's Serve application: `name` is missing, the reward's name at the gateway")
    try:
        return build_reward(name, RewardConfig.model_validate({"own_app": True} | settings))
    except ValidationError as error:
        raise ConfigError(f"args of the Serve application of {name}: {explain(error)}") from None
