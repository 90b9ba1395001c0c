"""What replicas need of a machine, and what this one has. Gigabytes are 10^9 bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Where a config does not say what a replica needs, it follows from its weights. Estimated, not measured:
ACTIVATIONS = 1.2  # of the weights' size, for what one batch takes beside them
CUDA_GB = 0.8  # CUDA's own, in every process
PROCESS_GB = 0.6  # Python, torch and transformers; measured


@dataclass(frozen=True)
class Need:
    """What a reward's replicas ask for; memory is of one replica."""

    name: str
    num_gpus: float
    replicas: int
    gpu_gb: float = 0.0
    host_gb: float = 0.0

    def at_least(self, weights_gb: float) -> Need:
        """With estimates from the size of the weights where nothing is stated."""
        on_gpu = ACTIVATIONS * weights_gb + CUDA_GB if self.num_gpus else 0.0
        return dataclasses.replace(
            self, gpu_gb=self.gpu_gb or on_gpu, host_gb=self.host_gb or PROCESS_GB + ACTIVATIONS * weights_gb
        )


@dataclass(frozen=True)
class Gpu:
    name: str
    total_gb: float
    free_gb: float


def pack(needs: Sequence[Need], gpus: Sequence[Gpu]) -> tuple[list[tuple[Gpu, list[str], float]], list[str]]:
    """Replicas on GPUs as Ray places them: each on the first with enough of its share left, whole ones alone.

    Returns each used GPU with the names on it and the memory that they need together; and names that found no place.
    """
    left = [1.0] * len(gpus)
    names: list[list[str]] = [[] for _ in gpus]
    needed = [0.0] * len(gpus)
    homeless = []
    for need in needs:
        for _ in range(need.replicas if need.num_gpus else 0):
            count, share = (int(need.num_gpus), 1.0) if need.num_gpus >= 1 else (1, need.num_gpus)
            found = [index for index, rest in enumerate(left) if rest >= share - 1e-9][:count]
            if len(found) < count:
                homeless.append(need.name)
                continue
            for index in found:
                left[index] -= share
                names[index].append(need.name)
                needed[index] += need.gpu_gb / count
    return [(gpus[index], names[index], needed[index]) for index in range(len(gpus)) if names[index]], homeless


def gpus_here() -> list[Gpu]:
    """The GPUs that torch sees; none where there is no torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(f"{index}: {torch.cuda.get_device_name(index)}", total / 1e9, free / 1e9))
    return found


def free_host_gb() -> float | None:
    """Memory that new processes can have, under the container's own limit as well; None where it is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))  # "max" where there is no limit
    except (OSError, ValueError):
        pass
    return free / 1e9


def weights_gb(reward: Any) -> float:
    """The size of all parameters in a reward's networks, in the precision that it computes in."""
    from torch import nn

    seen: set[int] = set()

    def size(thing: Any) -> int:
        if id(thing) in seen:
            return 0
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            return sum(parameter.numel() * parameter.element_size() for parameter in thing.parameters())
        ours = type(thing).__module__.startswith("drpo_rewards.")
        return sum(size(value) for value in vars(thing).values()) if ours and hasattr(thing, "__dict__") else 0

    return size(reward) / 1e9
