"""Do the settings of the objective and of the feature map exist, and do they fit?"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from drpo.checks.plan import Plan
from drpo.config import Config
from drpo.errors import DrpoError, ModelLoadError
from drpo.shapes.embedded import feature_map_source
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.findings import Finding


def check_settings(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the settings that other sections than their own define."""
    if plan.trains:
        yield from _check_objective(plan.config)
        yield from _check_features(plan.config)


def _check_objective(config: Config) -> Iterator[Finding]:
    from drpo.method.objectives import load_objective, objective_class

    name, settings = config.objective.name, config.objective.settings
    try:
        objective = load_objective(name, settings)
    except ValidationError as error:
        known = objective_class(name).settings_class.model_fields
        for details in error.errors():
            key = ".".join(str(part) for part in details["loc"])
            if details["type"] == "extra_forbidden":
                found = f"there is no setting objective.{key}{did_you_mean(key, known)}"
            else:
                found = f"objective.{key} = {details['input']!r}: {details['msg']}"
            yield Finding("settings", f"objective.{key}", "wrong", found)
    except DrpoError as error:
        yield Finding("settings", "objective.name", "wrong", str(error))
    else:
        yield Finding("settings", "objective.name", "ok", name)
        if objective.needs.reward_gradient:
            yield _check_reward(objective.settings.reward)


def _check_reward(source: Any) -> Finding:
    from drpo.training.reward_gradient import check_reward

    try:
        check_reward(source)
    except DrpoError as error:
        return Finding("settings", "objective.reward", "wrong", str(error))
    return Finding("settings", "objective.reward", "ok", source.type)


def _check_features(config: Config) -> Iterator[Finding]:
    from drpo.method.features import FEATURE_MAPS, feature_map_class

    name, options = config.features.name, config.features.options
    if name not in FEATURE_MAPS:
        found = f"features.name: there is no feature map {name!r}{did_you_mean(name, FEATURE_MAPS)}"
        yield Finding("settings", "features.name", "wrong", found, f"choose from {', '.join(FEATURE_MAPS)}")
        return
    cls = feature_map_class(name)
    arguments = dict(list(inspect.signature(cls).parameters.items())[1:])
    wrong = [option for option in options if option not in arguments or option == "device"]
    for option in wrong:
        found = f"there is no setting features.options.{option}{did_you_mean(option, arguments)}"
        yield Finding("settings", f"features.options.{option}", "wrong", found)
    if wrong:
        return
    try:
        source = feature_map_source(config.features.path or None)
        if hasattr(cls, "check"):
            cls.check(source, **options)
    except (DrpoError, TypeError) as error:
        about = "features.path" if isinstance(error, ModelLoadError) else "features.options"
        yield Finding("settings", about, "wrong", f"{about}: {error}")
    else:
        yield Finding("settings", "features.name", "ok", name)
