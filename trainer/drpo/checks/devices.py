"""Are there the devices, CPUs and Ray resources that the settings ask for?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from drpo.checks.plan import Plan
from drpo.shapes.embedded import service_source
from drpo_rewards.errors import RewardsError
from drpo_rewards.findings import Finding

SPARE_CPUS = 4
"""Logical CPUs that a local Ray has besides those of the workers, for the rewards."""


def count_local_cpus(workers: int, threads: int) -> int:
    """The logical CPUs of a local Ray, which Ray only counts.

    They may be more than the machine has, because the rewards and the workers take turns.
    """
    return max(workers * threads + SPARE_CPUS, os.cpu_count() or 1)


def check_devices(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about devices and resources."""
    training, model = plan.config.training, plan.config.model
    if plan.verb != "sample" and training.use_gpu and model.device == "cpu":
        found = "training.use_gpu asks for a GPU for each worker, but model.device is cpu"
        yield Finding("devices", "training.use_gpu", "wrong", found, "set model.device to auto")
    if plan.trains and model.dtype == "float16" and not training.use_gpu:
        found = "model.dtype: float16 needs a GPU (training.use_gpu: true); on a CPU use float32"
        yield Finding("devices", "model.dtype", "wrong", found)
    if plan.starts_ray or plan.verb == "sample":  # otherwise workers run on machines that cannot be looked at from here
        yield from _check_device(model.device)
    if plan.starts_ray:
        yield from _check_resources(plan)


def _check_device(device: str) -> Iterator[Finding]:
    if not device.startswith("cuda"):
        yield Finding("devices", "model.device", "ok", device)
        return
    gpus, number = _count_gpus(), int(device.partition(":")[2] or 0)
    if number < gpus:
        yield Finding("devices", "model.device", "ok", device)
        return
    found = f"there is no device {device}: this machine has {_in_words(gpus)} that torch can use"
    yield Finding("devices", "model.device", "wrong", f"model.device: {found}", "use cpu, or auto for what is there")


def _check_resources(plan: Plan) -> Iterator[Finding]:
    """Checks that a local Ray has what the workers and the rewards ask for together. Otherwise Ray waits forever."""
    training = plan.config.training
    available: Counter[str] = Counter(
        {"CPU": count_local_cpus(training.num_workers, training.threads_per_worker), "GPU": _count_gpus()}
    )
    needed = _count_rewards(plan)
    if plan.trains:
        worker = training.worker_resources
        if worker["GPU"] and not training.use_gpu:
            found = "training.resources_per_worker asks for a GPU, but training.use_gpu is false"
            yield Finding("devices", "training.resources_per_worker", "wrong", found, "set training.use_gpu to true")
        for name, amount in worker.items():
            needed[name] += amount * training.num_workers  # type: ignore[assignment]
    settings = {"CPU": "training.threads_per_worker", "GPU": "training.use_gpu"}
    for name, amount in needed.items():
        is_explicit = name in (training.resources_per_worker or {})
        about = "training.resources_per_worker" if is_explicit else settings.get(name, "training.resources_per_worker")
        if amount > available[name]:
            found = f"{about}: the workers and rewards ask for {amount:g} {name}, but this machine's Ray has"
            fix = "ask for less, or join a cluster that has it with run.ray_address"
            yield Finding("devices", about, "wrong", f"{found} {available[name]}", fix)
        elif amount:
            yield Finding("devices", about, "ok", f"{amount:g} of {available[name]} {name} of this machine's Ray")


def _count_rewards(plan: Plan) -> Counter[str]:
    """The Ray resources of the rewards that will be started."""
    from drpo_rewards.serving.config import ServiceConfig

    needed: Counter[str] = Counter()
    if plan.config.rewards.address is not None or not plan.asks_rewards:
        return needed
    try:
        rewards = ServiceConfig.load(service_source(plan.config.rewards.service or "")).rewards.values()
    except RewardsError:  # a finding about the rewards
        return needed
    for reward in rewards:
        for name, amount in {"CPU": reward.num_cpus, "GPU": reward.num_gpus, **reward.resources}.items():
            needed[name] += amount * reward.first_replicas  # type: ignore[assignment]
    return needed


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _in_words(gpus: int) -> str:
    return "no GPU" if gpus == 0 else "one GPU" if gpus == 1 else f"{gpus} GPUs"
