"""Start a Ray on this machine, or join one that runs already.

Imports Ray only inside functions, because Ray reads its environment when it is imported.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext, suppress

from drpo_rewards.cluster import loopback
from drpo_rewards.cluster.environment import set_ray_environment
from drpo_rewards.errors import ServiceUnavailableError

LEAST_CPUS = 4  # Ray is started with at least this many logical CPUs


def start_local_ray(num_cpus: int | None = None, listen_host: str = "127.0.0.1") -> None:
    """Start a Ray that only this machine can reach, without log output. It ends with this process, or with `stop_ray`.

    Args:
        num_cpus: logical CPUs that Ray may hand out; by default those of the machine, but at least 4.
        listen_host: the address on which Serve's gRPC listens. For HTTP, Serve has an option.
    """
    set_ray_environment()
    silence_serve()
    import ray

    with loopback.loopback_only(listen_host):
        ray.init(
            address="local",
            num_cpus=num_cpus or max(LEAST_CPUS, os.cpu_count() or 1),
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"worker_process_setup_hook": f"{loopback.__name__}.{loopback.bind_grpc_servers.__name__}"},
        )


def join_ray(address: str) -> None:
    """Connect to the Ray at `address` (`auto`, HOST:PORT or ray://HOST:PORT), without its log output.

    Raises:
        ServiceUnavailableError: no Ray answers there.
    """
    set_ray_environment()
    silence_serve()
    import ray

    try:
        with loopback.loopback_only() if loopback.listens_on_loopback_only(address) else nullcontext():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ServiceUnavailableError(f"no Ray can be reached at {address}: {reason}") from error


def ray_address() -> str:
    """Return the address at which other processes reach the Ray that this process is connected to."""
    import ray

    return ray.get_runtime_context().gcs_address


def stop_ray() -> None:
    """End the Ray that `start_local_ray` started, or disconnect from the one that `join_ray` joined."""
    import ray

    ray.shutdown()


def silence_serve(level: int = logging.WARNING) -> None:
    """Show only messages of `level` and above from Ray Serve, if it is installed.

    Importing Serve sets this level itself, so it is imported first.
    """
    with suppress(ImportError):
        import ray.serve  # noqa: F401
    logging.getLogger("ray.serve").setLevel(level)
