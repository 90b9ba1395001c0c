"""How many runs Ray has room for at the same time."""

from __future__ import annotations

import os

from drpo.config import Config


def find_room(config: Config) -> int:
    """The number of runs with these settings whose workers Ray can start now, beside the rewards; at least 1.

    Ray only counts CPUs, and a local one has more than the machine: there the cores are the limit.
    """
    import ray

    training = config.training
    free = ray.available_resources()
    if config.run.ray_address is None:
        free["CPU"] = min(free.get("CPU", 0.0), float(os.cpu_count() or 1))
    needed = {name: amount * training.num_workers for name, amount in training.worker_resources.items() if amount}
    rooms = [free.get(name, 0.0) // amount for name, amount in needed.items()]
    return max(1, int(min(rooms, default=1)))
