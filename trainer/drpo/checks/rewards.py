"""Are there the service, the rewards, the mixtures and the metrics that the settings name?"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from drpo.checks.plan import Plan
from drpo.checks.trial import try_prompts
from drpo.config import Config, StopCondition
from drpo.data.prompts.record import PromptRecord
from drpo.errors import DrpoError
from drpo.shapes.embedded import service_source
from drpo.shapes.variety import find_open
from drpo.training.mixture import find_other_mixture, resolve_mixture
from drpo_rewards.api.contract import ModelInfo, check_weights
from drpo_rewards.api.metadata import check_keys
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.client import RankingClient
from drpo_rewards.cluster.environment import set_ray_environment
from drpo_rewards.cluster.local_ray import join_ray, stop_ray
from drpo_rewards.errors import RewardsError
from drpo_rewards.findings import Finding

RequestCheck = Callable[[str, Mapping[str, Any] | None], None]  # of a prompt and its metadata

ANSWER_S = 10.0
"""Seconds within which a running service must list its rewards."""


def check_rewards(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the rewards."""
    config = plan.config
    if not plan.asks_rewards:
        return
    yield from _check_weights(config)
    key = config.rewards.api_key_env
    if key and not os.environ.get(key):
        found = f"rewards.api_key_env names ${key}, which is not set"
        yield Finding("rewards", "rewards.api_key_env", "wrong", found, f"set ${key} to the service's API key")
    elif config.rewards.address is None:
        yield from _check_service(plan, service_source(config.rewards.service or ""))
    elif config.rewards.address.startswith("serve://"):
        yield from _check_handle(plan, config.rewards.address)
    else:
        yield from _check_address(plan, config.rewards.address, os.environ.get(key) if key else None)


def _check_weights(config: Config) -> Iterator[Finding]:
    if config.rewards.weights is not None:
        try:
            check_weights(config.rewards.weights)
        except ValueError as error:
            yield Finding("rewards", "rewards.weights", "wrong", f"rewards.weights: {error}")


def _check_service(plan: Plan, source: str) -> Iterator[Finding]:
    """Checks the service that will be started, as `drpo-rewards doctor` does."""
    from drpo_rewards.serving.operate.declared import read_declared_models, read_request_checks
    from drpo_rewards.serving.operate.doctor import examine

    if os.getcwd() not in sys.path:  # Ray's workers find a user's own rewards there too
        sys.path.append(os.getcwd())
    # The service of a run has no listeners, and other checks look at the surroundings, and count CPUs, GPUs and
    # resources together with those of the workers.
    others = ("ports", "CPUs", "GPUs", "resources", "folders", "limits", "shared memory")
    found_by_doctor = examine(source, starts_here=plan.starts_ray)
    mine = [finding for finding in found_by_doctor if finding.check not in others]
    for finding in mine:
        found = finding.found if finding.check == "config" else f"{finding.check} of {finding.about}: {finding.found}"
        if finding.state == "wrong":
            found = f"rewards.service: {found}"
        yield Finding("rewards", "rewards.service", finding.state, found, finding.fix)
    if any(finding.state == "wrong" for finding in mine):
        return
    try:
        models = read_declared_models(source)
    except RewardsError as error:
        yield Finding("rewards", "rewards.service", "wrong", f"rewards.service: {error}")
        return
    yield from _check_names(plan, models, f"the service {os.path.basename(source)}", read_request_checks(source))


def _check_handle(plan: Plan, address: str) -> Iterator[Finding]:
    """Checks a service inside a Ray cluster, which this process joins for that unless it belongs to it already."""
    set_ray_environment(for_training=True)
    import ray

    if ray.is_initialized():
        yield from _check_address(plan, address, None)
    elif plan.config.run.ray_address is None:
        found = f"rewards.address: {address} is inside a Ray cluster, but this run starts a Ray of its own"
        fix = "set run.ray_address to that cluster's, or give an http:// or grpc:// address"
        yield Finding("rewards", "rewards.address", "wrong", found, fix)
    else:
        try:
            join_ray(plan.config.run.ray_address)
        except RewardsError as error:
            found = f"{address} can be asked only inside the Ray cluster: {error}"
            yield Finding("rewards", "rewards.address", "skipped", found)
            return
        try:
            yield from _check_address(plan, address, None)
        finally:
            stop_ray()


def _check_address(plan: Plan, address: str, api_key: str | None) -> Iterator[Finding]:
    """Checks the service that runs already, by asking it."""
    try:
        client = RankingClient(address, api_key=api_key, timeout_s=ANSWER_S, retries=0)
    except ValueError as error:
        yield _unusable(address, error)
        return
    with client:
        try:
            models = client.models()
        except (RewardsError, ValueError) as error:
            yield _unusable(address, error)
            return
        yield Finding("rewards", "rewards.address", "ok", f"{address}: {', '.join(model.name for model in models)}")
        yield from _check_names(plan, models, f"the service at {address}", client=client)


def _unusable(address: str, error: Exception) -> Finding:
    found = f"rewards.address: the service at {address} cannot be used: {error}"
    fix = "start it, or correct rewards.address and rewards.api_key_env"
    return Finding("rewards", "rewards.address", "wrong", found, fix)


def _check_names(
    plan: Plan,
    models: Sequence[ModelInfo],
    service: str,
    request_checks: Mapping[str, RequestCheck] | None = None,
    client: RankingClient | None = None,
) -> Iterator[Finding]:
    """Checks the names in the settings, and the prompts' metadata, against what a service offers.

    Args:
        plan: what is about to start.
        models: the rewards and mixtures of the service.
        service: the service in words.
        request_checks: the checks of the rewards that have one; None: the service runs already and does not say.
        client: of a service that runs already.
    """
    rewards = {model.name: model for model in models if model.kind == "reward"}
    mixtures = {model.name: model for model in models if model.kind == "mixture"}
    for name in dict.fromkeys(asked.partition("/")[0] for asked in plan.asks):
        if name not in rewards and name not in mixtures:
            found = f"{service} has no reward {name!r}{did_you_mean(name, rewards)}"
            yield Finding("rewards", "rewards", "wrong", found, f"choose from {', '.join(rewards)}")
    settings = plan.config.rewards
    if settings.mixture is not None and settings.mixture not in mixtures:
        found = f"{service} has no mixture {settings.mixture!r}{did_you_mean(settings.mixture, mixtures)}"
        fix = f"choose from {', '.join(mixtures)}"
        yield Finding("rewards", "rewards.mixture", "wrong", f"rewards.mixture: {found}", fix)
        return
    mixture = resolve_mixture(settings, models)
    chosen = list(mixture.weights)
    for name in chosen:
        if name not in rewards:
            found = f"{service} has no reward {name!r}{did_you_mean(name, rewards)}"
            fix = f"choose from {', '.join(rewards)}"
            yield Finding("rewards", "rewards.weights", "wrong", f"rewards.weights: {found}", fix)
    known = scorers = {name: rewards[name] for name in chosen if name in rewards}
    if plan.run_dir is not None and plan.trains and (problem := find_other_mixture(plan.run_dir, mixture)):
        yield Finding("rewards", "rewards", "wrong", problem, "or start a new run")
    yield Finding("rewards", "rewards", "ok", f"ranked by {', '.join(known)}")
    if plan.evaluates and len(known) == len(chosen):
        runs = request_checks is None
        scoring = plan.config.evaluation.rewards or tuple(known)
        for name in scoring:
            if name not in rewards:
                found = f"evaluation.rewards: {service} has no reward {name!r}{did_you_mean(name, rewards)}"
                yield Finding("rewards", "evaluation.rewards", "wrong", found, f"choose from {', '.join(rewards)}")
                return
        scorers = {name: rewards[name] for name in scoring}
        yield from _check_shown(plan.config, scorers, runs)
        yield from _check_watched(plan, scorers, runs)
    yield from _check_metadata(plan, known, scorers, request_checks or {}, client)


def _check_shown(config: Config, known: Mapping[str, ModelInfo], runs: bool) -> Iterator[Finding]:
    """Checks the reward and the metric that the evaluation shows."""
    evaluation = config.evaluation
    reward = evaluation.reward if evaluation.reward is not None else next(iter(known))
    if reward not in known:
        found = f"evaluation.reward: {reward!r} is none of the rewards that score{did_you_mean(reward, known)}"
        yield Finding("rewards", "evaluation.reward", "wrong", found, f"choose from {', '.join(known)}")
        return
    metrics = [metric.name for metric in known[reward].metrics]
    if evaluation.metric is None or evaluation.metric in metrics:
        yield Finding("rewards", "evaluation.reward", "ok", f"shows {reward}")
    elif metrics or runs:
        declares = f"it declares {', '.join(metrics)}" if metrics else "it declares none"
        found = f"the reward {reward!r} has no metric {evaluation.metric!r}{did_you_mean(evaluation.metric, metrics)}"
        fix = f"{declares}; without evaluation.metric its first one is shown, or its score"
        yield Finding("rewards", "evaluation.metric", "wrong", f"evaluation.metric: {found}", fix)
    else:
        found = f"whether {reward!r} has the metric {evaluation.metric!r} is known only when it runs"
        yield Finding("rewards", "evaluation.metric", "skipped", found)


def _check_watched(plan: Plan, scorers: Mapping[str, ModelInfo], runs: bool) -> Iterator[Finding]:
    """Checks the numbers that decide during training: `training.keep_best` and `training.stop_if`."""
    training = plan.config.training
    asked = {"training.keep_best": training.keep_best}
    if training.stop_if is not None:
        asked["training.stop_if"] = StopCondition.parse(training.stop_if).metric
    guards = ["guard/diversity", "guard/distance_to_base"]
    records, without = plan.evaluation_prompts, list[str]()
    if plan.config.evaluation_prompts().source == "shapes" and not isinstance(records, DrpoError):
        colors, places = map(any, zip(*(find_open(record.metadata or {}) for record in records), strict=True))
        for name, is_open in (("guard/colors", colors), ("guard/places", places)):
            (guards if is_open else without).append(name)
    numbers = [*scorers, *(f"{name}/{one.name}" for name, model in scorers.items() for one in model.metrics), *guards]
    for key, number in asked.items():
        if number is None or not plan.trains or number in numbers:
            continue
        reward = number.partition("/")[0]
        if not runs and reward in scorers and not scorers[reward].metrics:
            yield Finding("rewards", key, "skipped", f"whether {reward!r} has {number!r} is known only when it runs")
        elif number in without:
            found = f"{key}: no prompt of the evaluation leaves open what {number} counts"
            yield Finding("rewards", key, "wrong", found, "evaluate on other prompts, or watch another number")
        else:
            found = f"{key}: the evaluation has no number {number!r}{did_you_mean(number, numbers)}"
            yield Finding("rewards", key, "wrong", found, f"choose from {', '.join(numbers)}")


def _check_metadata(
    plan: Plan,
    known: Mapping[str, ModelInfo],
    scorers: Mapping[str, ModelInfo],
    checks: Mapping[str, RequestCheck],
    client: RankingClient | None,
) -> Iterator[Finding]:
    """Checks that prompts have metadata if a reward needs them, and such as the rewards take.

    Args:
        plan: what is about to start.
        known: the rewards that rank.
        scorers: the rewards of the evaluation.
        checks: of rewards, by name.
        client: of a service that runs already, which is asked about prompts that cannot be checked here.
    """
    sets: dict[str, tuple[list[PromptRecord] | DrpoError, Mapping[str, ModelInfo]]] = {}
    if plan.trains and plan.config.offline is None:
        sets["prompts"] = plan.training_prompts, known
    if plan.evaluates:
        sets["evaluation"] = plan.evaluation_prompts, scorers
    for section, (records, asked) in sets.items():
        if isinstance(records, DrpoError):
            continue
        schemas = {name: model.metadata_schema for name, model in asked.items()}
        yield from _check_each(section, records, "the rewards refuse", partial(_check_read, schemas))
        for name in checks.keys() & asked.keys():
            yield from _check_each(section, records, f"the reward {name!r} refuses", checks[name])
        others = [model for name, model in asked.items() if name not in checks]
        tries = [one for one in others if one.needs_in_prompt and one.mode == "pointwise"] if client is not None else []
        yield from _check_presence(section, records, [one for one in others if one not in tries])
        for model in tries:
            assert client is not None
            yield from try_prompts(client, section, records, model)


def _check_read(schemas: Mapping[str, Any], prompt: str, metadata: Mapping[str, Any] | None) -> None:
    """Raises a RewardsError if no reward reads a key of the metadata."""
    check_keys(metadata, schemas)


def _check_presence(section: str, records: Sequence[PromptRecord], models: Sequence[ModelInfo]) -> Iterator[Finding]:
    """Checks that prompts have metadata if a reward that has no check of its own needs them."""
    without = sum(record.metadata is None for record in records)
    needing = [model for model in models if model.needs_metadata]
    for model in needing[:1] if without else ():
        found = f"{without} of {len(records)} prompts of {section} have no metadata, which {model.name} needs"
        if model.needs_in_prompt:  # it may read these prompts
            yield Finding("rewards", section, "skipped", f"{found}, {model.needs_in_prompt}")
        else:
            fix = "give each prompt its metadata, or rank with another reward"
            yield Finding("rewards", section, "wrong", found, fix)


def _check_each(section: str, records: Sequence[PromptRecord], problem: str, check: RequestCheck) -> Iterator[Finding]:
    """Checks every prompt with its metadata. The first problem stands for all."""
    problems = []
    for number, record in enumerate(records, start=1):
        try:
            check(record.prompt, record.metadata)
        except RewardsError as error:
            problems.append(f"prompt {number} ({record.prompt[:60]!a}): {error}")
    if problems:
        found = f"{problem} {len(problems)} of the {len(records)} prompts of {section}: {problems[0]}"
        yield Finding("rewards", section, "wrong", found, "correct the prompts or their metadata")
