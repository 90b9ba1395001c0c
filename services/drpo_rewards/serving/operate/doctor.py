"""What would keep a service from starting on this machine: looked at before anything starts, without Ray.

Each check gives findings; a finding that is `wrong` says how to mend it. Nothing is downloaded, and of model files only
the headers are read.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, RewardsError
from drpo_rewards.rewards.files import hub
from drpo_rewards.serving.config import RewardConfig, ServiceConfig
from drpo_rewards.serving.operate.resources import Gpu, Need, free_host_gb, gpus_here, pack, weights_gb

State = Literal["ok", "wrong", "skipped"]
LEAST_CPUS = 4  # Ray is started with at least so many logical ones


@dataclass(frozen=True)
class Finding:
    """One line of the table. `about` is a reward or a thing, `mend` what to do where the state is wrong."""

    check: str
    about: str
    state: State
    found: str
    mend: str = ""


def examine(source: str, resources: Sequence[str] = ()) -> list[Finding]:
    """Everything that can be known of a service config on this machine.

    `resources` are the custom resources that it will have; rewards that ask for others run elsewhere and are skipped.
    """
    try:
        settings = ServiceConfig.load(source)
        settings.api_key_digests()
    except ConfigError as error:
        return [Finding("config", source, "wrong", str(error), "correct the file; services/README.md shows one")]
    here = {name: reward for name, reward in settings.rewards.items() if reward.resources.keys() <= set(resources)}
    findings = [Finding("config", source, "ok", f"{len(settings.rewards)} rewards, {len(settings.mixtures)} mixtures")]
    findings += _packages("serve")
    if any(_has_model(reward) for reward in here.values()):
        findings += _packages("rewards")
    needs = []
    for name, reward in settings.rewards.items():
        if name not in here:
            wanted = ", ".join(reward.resources)
            found = f"runs on machines with {wanted}; there: drpo-rewards doctor --resource ..."
            findings.append(Finding("files", name, "skipped", found))
            continue
        finding, need = _reward(name, reward)
        findings += finding
        needs.append(need)
    findings += _processors(here)
    findings += _gpus(needs, gpus_here())
    findings.append(_host_memory(needs, free_host_gb()))
    findings += _ports(settings)
    return findings


def _packages(extra: str) -> Iterator[Finding]:
    """Whether what the distribution's extra asks for is installed, in versions that it takes."""
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
    found = "; ".join(wrong) or "all there"
    yield Finding("packages", extra, "wrong" if wrong else "ok", found, f"pip install 'drpo[{extra}]'" if wrong else "")


def _has_model(reward: RewardConfig) -> bool:
    try:
        return bool(rewards.needs(reward.type, reward.options))
    except ConfigError:
        return reward.type in rewards.CATALOGUE


def _reward(name: str, reward: RewardConfig) -> tuple[list[Finding], Need]:
    """Its class, options and files, and how much memory a replica of it takes."""
    need = Need(name, reward.num_gpus, reward.first_replicas)
    if reward.memory is not None:
        need = Need(name, reward.num_gpus, reward.first_replicas, reward.memory.gpu_gb, reward.memory.host_gb)
    try:
        cls = rewards.load_class(reward.type)
        inspect.signature(cls).bind(**reward.options)
        parts = rewards.needs(reward.type, reward.options)
    except TypeError as error:
        return [Finding("files", name, "wrong", f"its options do not fit: {error}", f"correct rewards.{name}")], need
    except ConfigError as error:
        missing = isinstance(error.__cause__, ModuleNotFoundError) and reward.type in rewards.CATALOGUE
        mend = "pip install 'drpo[rewards]'" if missing else f"correct rewards.{name}.type, or install its package"
        return [Finding("files", name, "wrong", str(error), mend)], need
    if not parts:
        says = hasattr(cls, "parts")
        found = "needs none" if says else "it does not say which files it reads"
        return [Finding("files", name, "ok" if says else "skipped", found)], need.at_least(0)
    findings = [_part(reward, part, place, name) for part, place in parts]
    if all(finding.state == "ok" for finding in findings):
        finding, counted_gb = _keys(name, reward)
        findings.append(finding)
    else:
        counted_gb = sum(part.gigabytes for part, _ in parts)
    return findings, need.at_least(counted_gb)


def _part(reward: RewardConfig, part: Any, place: str, name: str) -> Finding:
    try:
        folder = hub.here(part, place)
    except RewardsError as error:
        return Finding("files", name, "wrong", str(error), f"put it there, or correct rewards.{name}.options")
    if folder is None:
        command = rewards.download_command(reward.type, reward.options)
        return Finding("files", name, "wrong", hub.explain(part, place), f"{command} (about {part.gigabytes:g} GB)")
    return Finding("files", name, "ok", f"{place}: {folder}" if str(folder) != place else place)


def _keys(name: str, reward: RewardConfig) -> tuple[Finding, float]:
    """Builds the reward from its files' headers, as strictly as it will be loaded; and the gigabytes of its weights."""
    from drpo_rewards.rewards.files.weights import headers_only

    try:
        with headers_only():
            built = rewards.create(reward.type, reward.options)
    except RewardsError as error:
        command = rewards.download_command(reward.type, reward.options)
        return Finding("keys", name, "wrong", str(error), f"another file is needed; {command} compares hashes"), 0.0
    counted = weights_gb(built)
    return Finding("keys", name, "ok", f"every tensor fits; {counted:.2g} GB of weights"), counted


def _processors(here: dict[str, RewardConfig]) -> Iterator[Finding]:
    have = max(LEAST_CPUS, os.cpu_count() or 1)
    wanted = sum(reward.num_cpus * reward.first_replicas for reward in here.values())
    fits = wanted <= have
    mend = "" if fits else "lower num_cpus: it is a share for placing replicas, and limits nothing"
    yield Finding("CPUs", "all", "ok" if fits else "wrong", f"{wanted:g} asked for, {have} there", mend)


def _gpus(needs: Sequence[Need], gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Whether there is a GPU share for every replica, and on each GPU the memory of all replicas placed there."""
    if not any(need.num_gpus for need in needs):
        return
    shares = sum(need.num_gpus * need.replicas for need in needs)
    placed, homeless = pack(needs, gpus)
    if homeless:
        said = f"{shares:g} asked for, {len(gpus)} there; no place for {', '.join(homeless)}"
        yield Finding("GPUs", "all", "wrong", said, "lower num_gpus or the replicas, or use a machine with more")
    else:
        yield Finding("GPUs", "all", "ok", f"{shares:g} asked for, {len(gpus)} there")
    for gpu, names, needed_gb in placed:
        fits = needed_gb <= gpu.free_gb
        said = f"{needed_gb:.1f} GB needed by {', '.join(names)}; {gpu.free_gb:.1f} of {gpu.total_gb:.1f} GB free"
        mend = "" if fits else "raise num_gpus so that fewer share it, lower batch_size, or use a larger GPU"
        yield Finding("GPU memory", gpu.name, "ok" if fits else "wrong", said, mend)


def _host_memory(needs: Sequence[Need], free_gb: float | None) -> Finding:
    needed_gb = sum(need.host_gb * need.replicas for need in needs)
    if free_gb is None:
        return Finding("memory", "host", "skipped", f"about {needed_gb:.1f} GB needed; what is free is not known here")
    fits = needed_gb <= free_gb
    said = f"about {needed_gb:.1f} GB needed while everything loads, {free_gb:.1f} GB free"
    mend = "" if fits else "fewer rewards or replicas on this machine, or one with more memory"
    return Finding("memory", "host", "ok" if fits else "wrong", said, mend)


def _ports(settings: ServiceConfig) -> Iterator[Finding]:
    for label, port in (("http_port", settings.http_port), ("grpc_port", settings.grpc_port)):
        if port == 0:
            yield Finding("ports", label, "ok", "a free one is taken")
            continue
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                said = f"{settings.host}:{port} cannot be had: {error.strerror or error}"
                yield Finding("ports", label, "wrong", said, f"end what listens there, or give another {label}")
                continue
        yield Finding("ports", label, "ok", f"{settings.host}:{port} is free")
