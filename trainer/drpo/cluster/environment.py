"""Ray's environment. Import this module, and call `prepare`, before anything imports ray."""

from __future__ import annotations

import os
import warnings

from drpo_rewards.cluster import loopback

DEFAULTS = {
    # Without a mode of its own, Ray looks for a token file in the home folder, and a client without the token hangs.
    "RAY_AUTH_MODE": "disabled",
    # Ray Train looks at its workers every 2 s by default, and each report waits for a look.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's workers are background processes (nice 15) otherwise, and hardly run where anything else does.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def prepare() -> None:
    """Sets what is not set already. A cluster with token authentication sets RAY_AUTH_MODE=token itself."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def start_ray(address: str | None, *, cpus: int) -> None:
    """Connects to a cluster, or starts a Ray that ends with this process; does nothing if Ray runs.

    One's own listens on the loopback interface alone.

    Args:
        address: "auto", HOST:PORT or ray://HOST:PORT for a cluster; None for a Ray of one's own.
        cpus: logical CPUs of one's own Ray, for its bookkeeping. They may be more than the machine has: the ranking
            service's deployments and the workers take turns.
    """
    prepare()
    import ray

    if ray.is_initialized():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is None:
            loopback.start(max(cpus, os.cpu_count() or 1))
        else:
            loopback.join(address)
