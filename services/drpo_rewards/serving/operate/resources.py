"""The resources that replicas need, and those of this machine. Gigabytes are 10^9 bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# If a config does not state what a replica needs, it is estimated from the size of the weights:
ACTIVATIONS = 1.2  # weights and one batch, as a multiple of the weights; estimated
CUDA_GB = 0.8  # CUDA itself, in every process; estimated
PROCESS_GB = 0.6  # Python, torch and transformers; measured


@dataclass(frozen=True)
class Need:
    """The resources that the replicas of one reward need.

    Attributes:
        name: the reward's name.
        num_gpus: the GPUs, or the share of one, that each replica asks Ray for.
        replicas: how many replicas are started.
        gpu_gb: GPU memory of one replica; 0 if it is not stated.
        host_gb: host memory of one replica; 0 if it is not stated.

    Example:
        Need("pickscore", num_gpus=0.25, replicas=2, gpu_gb=3.2, host_gb=5.3)
    """

    name: str
    num_gpus: float
    replicas: int
    gpu_gb: float = 0.0
    host_gb: float = 0.0

    def with_estimates(self, weights_gb: float) -> Need:
        """Return the same with estimates, from the size of the weights, for memory that is not stated."""
        on_gpu = ACTIVATIONS * weights_gb + CUDA_GB if self.num_gpus else 0.0
        return dataclasses.replace(
            self, gpu_gb=self.gpu_gb or on_gpu, host_gb=self.host_gb or PROCESS_GB + ACTIVATIONS * weights_gb
        )


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine and its memory."""

    name: str
    total_gb: float
    free_gb: float


@dataclass(frozen=True)
class GpuLoad:
    """The replicas on one GPU, by the names of their rewards, and the memory that they need together."""

    gpu: Gpu
    names: list[str]
    needed_gb: float


def assign_to_gpus(needs: Sequence[Need], gpus: Sequence[Gpu]) -> tuple[list[GpuLoad], list[str]]:
    """Assign replicas to GPUs as Ray does: each to the first GPU with enough of its share left.

    A replica that asks for whole GPUs shares them with no other.

    Returns:
        The load of each used GPU, and the names of the replicas that fit on none.
    """
    left = [1.0] * len(gpus)
    names: list[list[str]] = [[] for _ in gpus]
    needed_gb = [0.0] * len(gpus)
    unplaced = []
    for need in needs:
        for _ in range(need.replicas if need.num_gpus else 0):
            count, share = (int(need.num_gpus), 1.0) if need.num_gpus >= 1 else (1, need.num_gpus)
            chosen = [index for index, rest in enumerate(left) if rest >= share - 1e-9][:count]
            if len(chosen) < count:
                unplaced.append(need.name)
                continue
            for index in chosen:
                left[index] -= share
                names[index].append(need.name)
                needed_gb[index] += need.gpu_gb / count
    loads = [GpuLoad(*load) for load in zip(gpus, names, needed_gb, strict=True)]
    return [load for load in loads if load.names], unplaced


def find_gpus() -> list[Gpu]:
    """List the GPUs that torch sees; none without torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return []
    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append(Gpu(f"{index}: {torch.cuda.get_device_name(index)}", total / 1e9, free / 1e9))
    return gpus


def free_host_gb() -> float | None:
    """Return the memory left for new processes, also within the container's limit; None if it is not known."""
    free = _read_meminfo("MemAvailable:")
    limit, used = _read_cgroup("memory.max"), _read_cgroup("memory.current")
    if free is None or limit is None or used is None:
        return free
    return min(free, limit - used)


def total_host_gb() -> float | None:
    """Return the memory of this machine, or the container's limit if that is less; None if it is not known."""
    total = _read_meminfo("MemTotal:")
    limit = _read_cgroup("memory.max")
    return total if total is None or limit is None else min(total, limit)


def _read_meminfo(name: str) -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return None


def _read_cgroup(name: str) -> float | None:
    try:
        return int(Path("/sys/fs/cgroup", name).read_text("ascii")) / 1e9
    except (OSError, ValueError):  # "max" if there is no limit
        return None


def count_weights_gb(reward: Any) -> float:
    """Add up the size of all parameters in a reward's networks, in gigabytes, in the dtype that it computes in."""
    from torch import nn

    seen: set[int] = set()

    def size(value: Any) -> int:
        if id(value) in seen:
            return 0
        seen.add(id(value))
        if isinstance(value, nn.Module):
            return sum(parameter.numel() * parameter.element_size() for parameter in value.parameters())
        is_ours = type(value).__module__.startswith("drpo_rewards.")
        return sum(size(inner) for inner in vars(value).values()) if is_ours and hasattr(value, "__dict__") else 0

    return size(reward) / 1e9
