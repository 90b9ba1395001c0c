"""Does the Ray that the run shall join answer?"""

from __future__ import annotations

from collections.abc import Iterator

from drpo.checks.plan import Plan
from drpo_rewards.cluster.environment import set_ray_environment
from drpo_rewards.cluster.local_ray import reach_ray
from drpo_rewards.errors import RewardsError
from drpo_rewards.findings import Finding


def check_ray(plan: Plan) -> Iterator[Finding]:
    """Yields whether a Ray answers at `run.ray_address`. Only a start can tell whether its version fits."""
    address = plan.config.run.ray_address
    if address is None or plan.verb == "sample":
        return
    set_ray_environment(for_training=True)
    import ray

    if ray.is_initialized():  # then that one is taken
        return
    try:
        reach_ray(address)
    except RewardsError as error:
        fix = "start it, or write HOST:PORT, ray://HOST:PORT, auto, or null for a Ray of the run's own"
        yield Finding("devices", "run.ray_address", "wrong", f"run.ray_address: {error}", fix)
    else:
        yield Finding("devices", "run.ray_address", "ok", f"a Ray answers at {address}")
