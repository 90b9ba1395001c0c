"""Do the settings of the objective and of the feature map exist, and do they fit?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from drpo.checks.hub import check_hub
from drpo.checks.plan import Plan
from drpo.config import Config, describe_error, list_errors
from drpo.errors import DrpoError, ModelLoadError
from drpo.shapes.embedded import feature_map_source, is_embedded
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.findings import Finding


def check_settings(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the settings that other sections than their own define."""
    if plan.trains:
        yield from _check_warm_up(plan.config)
        yield from _check_objective(plan.config)
    if plan.trains or plan.measures_features:
        yield from _check_features(plan)


def _check_warm_up(config: Config) -> Iterator[Finding]:
    optimizer, steps = config.optimizer, config.training.steps
    if optimizer.warmup_steps and optimizer.warmup_steps >= steps:
        found = (
            f"{optimizer.warmup_steps} steps of warm-up, but {steps} of training: the learning rate comes to "
            f"{optimizer.factor(steps - 1, steps):.2g} of optimizer.lr"
        )
        yield Finding("settings", "optimizer.warmup_steps", "warning", found, "lower it, or raise training.steps")


def _check_objective(config: Config) -> Iterator[Finding]:
    from drpo.method.objectives import load_objective, objective_class

    name, settings = config.objective.name, config.objective.settings
    try:
        objective = load_objective(name, settings)
    except ValidationError as error:
        yield from _describe(error, "objective", objective_class(name).settings_class)
    except DrpoError as error:
        yield Finding("settings", "objective.name", "wrong", str(error))
    else:
        if config.offline is not None and not objective.needs.takes_supports:
            found = f"objective.name: {name} needs rewards and cannot be trained on given preferences"
            fix = "choose another objective, such as drpo, or remove the section offline"
            yield Finding("settings", "objective.name", "wrong", found, fix)
        else:
            yield Finding("settings", "objective.name", "ok", name)
        if config.training.selection == "rollouts" and not objective.needs.takes_queries:
            found = f"training.selection: rollouts cannot be used with objective.name {name}"
            yield Finding("settings", "training.selection", "wrong", found, "use pairs, or the objective drpo")
        if config.training.staleness and (objective.needs.actions or not objective.needs.ranking or config.offline):
            found = f"training.staleness: 1 cannot be used with objective.name {name}"
            if config.offline:
                found = "training.staleness: 1 cannot be used with given preferences, since nothing waits for a ranking"
            yield Finding("settings", "training.staleness", "wrong", found, "set it to 0")
        if objective.needs.reward_gradient:
            yield _check_reward(objective.settings.reward)


def _check_reward(source: Any) -> Finding:
    from drpo.training.reward_gradient import check_reward

    try:
        check_reward(source)
    except DrpoError as error:
        return Finding("settings", "objective.reward", "wrong", str(error))
    return Finding("settings", "objective.reward", "ok", source.type)


def _check_features(plan: Plan) -> Iterator[Finding]:
    from drpo.method.features import FEATURE_MAPS, check_feature_map, feature_map_class, find_files

    config, about = plan.config, "features.name"
    name, options = config.features.name, config.features.options
    if name not in FEATURE_MAPS:
        found = f"features.name: there is no feature map {name!r}{did_you_mean(name, FEATURE_MAPS)}"
        yield Finding("settings", about, "wrong", found, f"choose from {', '.join(FEATURE_MAPS)}")
        return
    cls = feature_map_class(name)
    if cls.weights != "files" and config.features.path and not is_embedded(config.features.path):
        found = f"features.path: the feature map {name} has no files, but the path is {config.features.path}"
        yield Finding("settings", "features.path", "wrong", found, "set it to null")
        return
    try:
        source = feature_map_source(config.features.path or None)
        check_feature_map(name, source, options, plan.layout)
        if cls.weights == "files" and source and find_files(source) is None:
            yield check_hub("features.path", source)
    except ValidationError as error:
        yield from _describe(error, "features.options", cls.settings_class)
    except DrpoError as error:
        about = "features.path" if isinstance(error, ModelLoadError) else "features.options"
        yield Finding("settings", about, "wrong", f"{about}: {error}")
    else:
        yield Finding("settings", about, "ok", name)


def _describe(error: ValidationError, section: str, settings: type[BaseModel]) -> Iterator[Finding]:
    """Yields a finding for each wrong setting of a section."""
    for details in list_errors(error):
        key = ".".join([section, *map(str, details["loc"])])
        yield Finding("settings", key, "wrong", describe_error(details, section, settings))
