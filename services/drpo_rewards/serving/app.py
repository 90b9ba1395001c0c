"""Builders of the service's applications, for clusters that deploy them from a Serve config (`serve deploy`, KubeRay).

A Serve config names them by `import_path: drpo_rewards.serving.app:ranking`; its `args` are a ServiceConfig, host and
ports included, because the gateways listen themselves. `proxy_location: Disabled` leaves out Ray Serve's own listeners.
A reward with `own_app` is a separate entry with `...app:reward`.
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import ValidationError
from ray import serve

from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.config import RewardConfig, ServiceConfig, explain
from drpo_rewards.serving.start import DEFAULT_APP, build, build_reward

API_KEYS_FILE = "DRPO_API_KEYS_FILE"


def ranking(args: dict[str, Any]) -> serve.Application:
    """Build the application of the gateway and its rewards.

    A cluster's gateway serves other machines, so API keys are needed unless `allow_no_auth` is set. They are read from
    `api_keys_file`, from the file that $DRPO_API_KEYS_FILE names, or from $DRPO_REWARDS_API_KEYS.

    Raises:
        ConfigError: the arguments are wrong, or there are no API keys.
    """
    fields = {"host": "0.0.0.0", "api_keys_file": os.environ.get(API_KEYS_FILE) or None} | args
    try:
        settings = ServiceConfig.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"args of the Serve application: {explain(error)}") from None
    return build(settings, settings.api_key_digests(), DEFAULT_APP, settings.http_port, settings.grpc_port)


def reward(args: dict[str, Any]) -> serve.Application:
    """Build the application of one reward with `own_app`.

    The application must be called `ranking-NAME`, where the gateway looks for it, and have no route.

    Args:
        args: the reward's `name`, and the fields of its RewardConfig.

    Raises:
        ConfigError: the arguments are wrong.
    """
    settings = dict(args)
    name = settings.pop("name", None)
    if not isinstance(name, str) or not name:
        raise ConfigError("args of a reward's Serve application: add `name`, the reward's name at the gateway")
    try:
        return build_reward(name, RewardConfig.model_validate({"own_app": True} | settings))
    except ValidationError as error:
        raise ConfigError(f"args of the Serve application of {name}: {explain(error)}") from None
