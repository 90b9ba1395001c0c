"""Check, before anything starts and without Ray, what would keep a service from starting on this machine.

Each check gives findings. One that is `wrong` says how to fix it. Nothing is downloaded, and only the headers of model
files are read.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drpo_rewards import rewards
from drpo_rewards.cluster.local_ray import LEAST_CPUS
from drpo_rewards.errors import ConfigError, RewardsError
from drpo_rewards.findings import Finding, State
from drpo_rewards.rewards.files import hub
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.serving.config import RewardConfig, ServiceConfig
from drpo_rewards.serving.operate.resources import (
    Gpu,
    Need,
    assign_to_gpus,
    count_weights_gb,
    find_gpus,
    free_host_gb,
    total_host_gb,
)
from drpo_rewards.serving.operate.surroundings import check_ports, check_surroundings

MADE_BY = {"conda": "conda", "container": "podman", "image_uri": "podman"}  # by the key of a runtime_env


def examine(
    source: str,
    resources: Sequence[str] = (),
    *,
    overrides: Mapping[str, Any] | None = None,
    starts_here: bool = False,
) -> list[Finding]:
    """Check a service config on this machine, and return all findings.

    Args:
        source: a YAML file, or the name of a shipped config.
        resources: the custom Ray resources that this machine will have. Rewards that ask for others run on other
            machines and are skipped.
        overrides: settings that replace those of the config, for example `http_port`.
        starts_here: the whole service is about to start on this machine alone. So no reward is skipped, and model
            files that are missing are downloaded by the start if the hub may be asked.
    """
    read = ServiceConfig.read(source)
    fix = "correct the file; services/README.md shows one" if os.path.exists(source) else ""
    findings = [Finding("config", source, "wrong", mistake, fix) for mistake in read.mistakes]
    if read.settings is None:
        return [*findings, *check_surroundings()]
    settings = read.settings.model_copy(update=dict(overrides or {}))
    if not read.mistakes:
        found = f"{len(settings.rewards)} rewards, {len(settings.mixtures)} mixtures"
        findings.append(Finding("config", source, "ok", found))
    if read.are_addresses_known:
        findings.append(_check_api_keys(settings))
    findings.append(_check_packages("serve"))
    here = {name: reward for name, reward in settings.rewards.items() if reward.resources.keys() <= set(resources)}
    findings += [
        _check_packages(extra) for extra in sorted({extra for reward in here.values() for extra in _extras(reward)})
    ]
    needs = []
    for name, reward in settings.rewards.items():
        if name not in here:
            findings.append(_check_elsewhere(name, reward, starts_here))
            continue
        reward_findings, need = _check_reward(name, reward, starts_here)
        findings += [*_check_environment(name, reward), *reward_findings]
        needs.append(need)
    findings.append(_check_cpus(here))
    if any(need.num_gpus for need in needs):  # looking for GPUs imports torch, which takes seconds
        findings += _check_gpus(needs, find_gpus())
    findings.append(_check_host_memory(needs, free_host_gb(), total_host_gb()))
    if read.are_addresses_known:
        findings += check_ports(settings)
    findings += check_surroundings()
    return findings


def _check_api_keys(settings: ServiceConfig) -> Finding:
    try:
        digests = settings.api_key_digests()
    except ConfigError as error:
        fix = "correct api_keys_file or the variable that api_keys_env names"
        return Finding("API keys", settings.host, "wrong", str(error), fix)
    return Finding("API keys", settings.host, "ok", f"{len(digests)} accepted" if digests else "none needed")


def _check_elsewhere(name: str, reward: RewardConfig, starts_here: bool) -> Finding:
    required = ", ".join(reward.resources)
    if starts_here:
        fix = f"remove rewards.{name}.resources, or start the service in a cluster (deploy/README.md)"
        return Finding("resources", name, "wrong", f"asks for {required}, which a Ray on one machine has not", fix)
    found = f"runs on machines with {required}; check it there with: drpo-rewards doctor --resource ..."
    return Finding("files", name, "skipped", found)


def _check_packages(extra: str) -> Finding:
    """Check that the packages of an extra of this distribution are installed, in versions that it accepts."""
    from packaging.requirements import Requirement

    wrong = []
    for text in importlib.metadata.requires("drpo") or ():
        requirement = Requirement(text)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    found, fix = "; ".join(wrong), f"pip install 'drpo[{extra}]'"
    return Finding("packages", extra, "wrong", found, fix) if wrong else Finding("packages", extra, "ok", "all there")


def _extras(reward: RewardConfig) -> list[str]:
    """List the extras of this distribution that a reward needs: its own, or the models' if it reads their files."""
    if reward.runtime_env:  # its packages are not this environment's
        return []
    try:
        extra = getattr(rewards.load_class(reward.type), "extra", None)
        return [extra] if extra else ["rewards"] if rewards.needed_files(reward.type, reward.options) else []
    except ConfigError:
        return ["rewards"] if reward.type in rewards.CATALOGUE else []


def _check_reward(name: str, reward: RewardConfig, starts_here: bool) -> tuple[list[Finding], Need]:
    """Check a reward's class, options and files, and estimate the memory that a replica needs."""
    need = Need(name, reward.num_gpus, reward.first_replicas)
    if reward.memory is not None:
        need = Need(name, reward.num_gpus, reward.first_replicas, reward.memory.gpu_gb, reward.memory.host_gb)
    if reward.class_may_be_elsewhere:
        found = "it has a runtime_env, so its class and files are checked when its replicas start"
        return [Finding("files", name, "skipped", found)], need.with_estimates(0)
    try:
        cls = rewards.load_class(reward.type)
    except ConfigError as error:
        missing = isinstance(error.__cause__, ModuleNotFoundError) and reward.type in rewards.CATALOGUE
        fix = "pip install 'drpo[rewards]'" if missing else f"correct rewards.{name}.type, or install its package"
        return [Finding("files", name, "wrong", str(error), fix)], need
    try:
        rewards.check_option_names(reward.type, reward.options)
        needed = rewards.needed_files(reward.type, reward.options)
    except (ConfigError, TypeError) as error:
        return [Finding("files", name, "wrong", str(error), f"correct rewards.{name}.options")], need
    if reward.runtime_env:  # its variables may name keys, addresses and the hub's cache
        found = "it has a runtime_env, so its files and what its options say are checked when its replicas start"
        return [Finding("files", name, "skipped", found)], need.with_estimates(0)
    if not needed and reward.type in rewards.CATALOGUE and not hasattr(cls, "extra"):
        return [_check_options(name, reward)], need.with_estimates(0)
    if not needed:
        declares = hasattr(cls, "files")
        found = "needs none" if declares else "it does not declare which files it reads"
        return [Finding("files", name, "ok" if declares else "skipped", found)], need.with_estimates(0)
    findings = [_check_files(name, reward, files, source, starts_here) for files, source in needed]
    weights_gb = sum(files.gigabytes for files, _ in needed)
    if all(finding.state == "ok" for finding in findings):
        finding, counted_gb = _check_keys(name, reward)
        findings.append(finding)
        weights_gb = weights_gb if counted_gb is None else counted_gb
    return findings, need.with_estimates(weights_gb)


def _check_environment(name: str, reward: RewardConfig) -> list[Finding]:
    """Check that the program is here with which Ray makes the reward's runtime_env; without it, no replica starts."""
    for key, program in MADE_BY.items():
        if key in (reward.runtime_env or {}) and shutil.which(_locate(program)) is None:
            found = f"rewards.{name}.runtime_env has {key}, for which Ray needs the program {program}; it is not here"
            return [Finding("packages", name, "wrong", found, f"install {program}, or use pip or uv instead")]
    return []


def _locate(program: str) -> str:
    """Return where Ray looks for a program: for conda, also where its own variables say."""
    home, activated = os.environ.get("RAY_CONDA_HOME"), os.environ.get("CONDA_EXE")
    if program == "conda" and home:
        return os.path.join(home, "bin", program)
    return activated if program == "conda" and activated else program


def _check_options(name: str, reward: RewardConfig) -> Finding:
    """Build a reward of the catalogue that reads no files, which is how it checks its options."""
    try:
        rewards.create(reward.type, reward.options)
    except RewardsError as error:
        return Finding("files", name, "wrong", str(error), f"correct rewards.{name}.options")
    return Finding("files", name, "ok", "needs none")


def _check_files(name: str, reward: RewardConfig, files: ModelFiles, source: str, starts_here: bool) -> Finding:
    try:
        folder = hub.find_offline(files, source)
    except RewardsError as error:
        return Finding("files", name, "wrong", str(error), f"add the file, or correct rewards.{name}.options")
    if folder is None:
        command = rewards.download_command(reward.type, reward.options)
        fix = f"{command} (about {files.gigabytes:g} GB)"
        state: State = "warning" if starts_here and hub.may_be_asked() else "wrong"
        return Finding("files", name, state, hub.explain_missing(files, source), fix)
    return Finding("files", name, "ok", f"{source}: {folder}" if str(folder) != source else source)


def _check_keys(name: str, reward: RewardConfig) -> tuple[Finding, float | None]:
    """Build the reward from the headers of its files, as strictly as a replica loads them.

    Returns:
        The finding, and the gigabytes of the weights; None if they were not counted.
    """
    if not rewards.accepts_headers_only(reward.type):
        found = "its constructor has no argument `headers_only`, so keys are checked only when it loads"
        return Finding("keys", name, "skipped", found), None
    try:
        built = rewards.create(reward.type, reward.options, headers_only=True)
    except RewardsError as error:
        command = rewards.download_command(reward.type, reward.options)
        return Finding("keys", name, "wrong", str(error), f"use another file; {command} compares hashes"), 0.0
    counted_gb = count_weights_gb(built)
    return Finding("keys", name, "ok", f"every tensor fits; {counted_gb:.2g} GB of weights"), counted_gb


def _check_cpus(here: dict[str, RewardConfig]) -> Finding:
    available = max(LEAST_CPUS, os.cpu_count() or 1)
    requested = sum(reward.num_cpus * reward.first_replicas for reward in here.values())
    fits = requested <= available
    fix = "" if fits else "lower num_cpus: Ray uses it to place replicas, and does not limit them by it"
    return Finding("CPUs", "all", "ok" if fits else "wrong", f"{requested:g} requested, {available} available", fix)


def _check_gpus(needs: Sequence[Need], gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Check that there is a GPU share for every replica, and enough memory on each GPU for its replicas."""
    shares = sum(need.num_gpus * need.replicas for need in needs)
    loads, unplaced = assign_to_gpus(needs, gpus)
    found = f"{shares:g} requested, {len(gpus)} available"
    if unplaced:
        fix = "lower num_gpus or the replicas, or use a machine with more GPUs"
        yield Finding("GPUs", "all", "wrong", f"{found}; no GPU left for {', '.join(unplaced)}", fix)
    else:
        yield Finding("GPUs", "all", "ok", found)
    for load in loads:
        gpu = load.gpu
        state = _compare(load.needed_gb, gpu.free_gb, gpu.total_gb)
        needed = f"{load.needed_gb:.1f} GB needed by {', '.join(load.names)}"
        fix = (
            ""
            if state == "ok"
            else "raise num_gpus so that fewer replicas share it, lower batch_size, or use a larger GPU"
        )
        found = f"{needed}; {gpu.free_gb:.1f} of {gpu.total_gb:.1f} GB free"
        yield Finding("GPU memory", gpu.name, state, found, fix)


def _check_host_memory(needs: Sequence[Need], free_gb: float | None, total_gb: float | None) -> Finding:
    needed_gb = sum(need.host_gb * need.replicas for need in needs)
    if free_gb is None or total_gb is None:
        return Finding("memory", "host", "skipped", f"about {needed_gb:.1f} GB needed; the free memory is not known")
    state = _compare(needed_gb, free_gb, total_gb)
    found = f"about {needed_gb:.1f} GB needed while everything loads, {free_gb:.1f} of {total_gb:.1f} GB free"
    fix = "" if state == "ok" else "run fewer rewards or replicas on this machine, or use one with more memory"
    return Finding("memory", "host", state, found, fix)


def _compare(needed_gb: float, free_gb: float, total_gb: float) -> State:
    """Compare memory that is needed with what there is. What is in use now may be free when it is needed."""
    if needed_gb <= free_gb:
        return "ok"
    return "warning" if needed_gb <= total_gb else "wrong"
