"""A Ray of one's own, for the service started by one command. A cluster brings its own instead.

Imports Ray only inside functions, because Ray reads these variables when it is imported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from drpo_rewards.cluster import loopback

SETTINGS = {
    "RAY_AUTH_MODE": "disabled",  # a Ray of this machine alone; unset, it depends on a file in the home folder
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_SERVE_LOG_TO_STDERR": "0",  # logs of replicas stay in Ray's log folder
    # Serve kills a listener that is not up after 5 s and starts another; on a busy machine none ever gets there
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}


def prepare(import_from: Sequence[Path] = ()) -> None:
    """Set what Ray reads from the environment, where it is not set already; call it before anything imports Ray.

    import_from: folders whose modules Ray's workers can import beside what is installed: rewards of one's own.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    paths = [*map(str, import_from), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def start_ray(num_cpus: int | None = None, host: str = "127.0.0.1") -> None:
    """Start Ray on this machine and for it alone, quietly.

    num_cpus: what it may hand out; None is what there is, at least 4.
    host: where the service on it shall listen.
    """
    prepare()
    _quiet_serve()
    loopback.start(num_cpus or max(4, os.cpu_count() or 1), host)


def join_ray(address: str) -> None:
    """Connect to a Ray that runs already. Raises ServiceUnavailableError where there is none."""
    prepare()
    _quiet_serve()
    loopback.join(address)


def ray_address() -> str:
    """Where other processes find the Ray that this one is connected to."""
    import ray

    return ray.get_runtime_context().gcs_address


def stop_ray() -> None:
    """End what `start_ray` started, and everything that runs on it; or leave what `join_ray` joined."""
    import ray

    ray.shutdown()


def _quiet_serve() -> None:
    """Importing Serve sets the level that is changed here, so that comes first."""
    import ray.serve  # noqa: F401

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
