"""What a service will offer, read from its config and the classes of its rewards. Nothing is started or loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.api.metadata import take_share
from drpo_rewards.rewards import code_of, load_class
from drpo_rewards.rewards.checks import describing
from drpo_rewards.serving.config import ServiceConfig

RequestCheck = Callable[[str, Mapping[str, Any] | None], None]


def read_declared_models(source: str) -> list[ModelInfo]:
    """Read the rewards and mixtures of a service config, as `GET /v1/models` will list them.

    A class may set attributes only when it is built. So a reward that has no `metrics` here may have some later.

    Args:
        source: a YAML file, or the name of a shipped config.

    Raises:
        ConfigError: there is no such config, it is not valid, or a reward's class cannot be imported.
    """
    settings = ServiceConfig.load(source)
    models = []
    for name, reward in settings.rewards.items():
        if reward.class_may_be_elsewhere:
            models.append(ModelInfo(name=name))
            continue
        cls = load_class(reward.type)
        metrics, needs_metadata = getattr(cls, "metrics", ()), getattr(cls, "needs_metadata", False)
        with describing(name):
            described = ModelInfo(
                name=name,
                mode="pairwise" if hasattr(cls, "compare") else "pointwise",
                metrics=list(metrics) if isinstance(metrics, list | tuple) else [],
                needs_metadata=needs_metadata is True,
                metadata_schema=_read_schema(cls),
            )
        models.append(described)
    return models + [
        ModelInfo(name=name, kind="mixture", weights=mixture.rewards, normalize=mixture.normalize)
        for name, mixture in settings.mixtures.items()
    ]


def read_request_checks(source: str) -> dict[str, RequestCheck]:
    """Read the rewards of a service config that say what they refuse, with a function that does so.

    It takes a prompt and its metadata. As in a service, a reward gets the keys that it reads.

    Raises:
        ConfigError: see `read_declared_models`.
    """
    rewards = ServiceConfig.load(source).rewards
    return {
        name: partial(_check_share, one.type, one.options)
        for name, one in rewards.items()
        if not one.class_may_be_elsewhere and hasattr(load_class(one.type), "check_request")
    }


def _read_schema(cls: type) -> dict[str, Any] | None:
    schema = getattr(cls, "metadata_schema", None)  # a property of an instance is not known here
    return schema if isinstance(schema, dict) else None


def _check_share(kind: str, options: Mapping[str, Any], prompt: str, metadata: Mapping[str, Any] | None) -> None:
    cls: Any = load_class(kind)
    share = take_share(None if metadata is None else dict(metadata), _read_schema(cls))
    with code_of(kind, "cannot check a request"):
        cls.check_request(prompt, share, **options)
