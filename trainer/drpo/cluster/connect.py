"""Start or join Ray for a run. Call `connect_ray` before anything else imports Ray."""

from __future__ import annotations

import warnings

from drpo_rewards.cluster.environment import set_ray_environment
from drpo_rewards.cluster.local_ray import join_ray, start_local_ray


def connect_ray(address: str | None, *, cpus: int) -> None:
    """Joins a cluster, or starts a local Ray that ends with this process. Does nothing if Ray is already running.

    Args:
        address: "auto", HOST:PORT or ray://HOST:PORT for a cluster; None for a local Ray.
        cpus: logical CPUs of the local Ray; see `drpo.checks.devices`.

    Raises:
        drpo_rewards.errors.ServiceUnavailableError: no Ray answers at `address`.
    """
    set_ray_environment(for_training=True)
    import ray

    if ray.is_initialized():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is None:
            start_local_ray(cpus)
        else:
            join_ray(address)
