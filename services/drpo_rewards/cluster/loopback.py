"""A Ray of one's own listens on this machine alone.

On Linux Ray listens on every interface, and whoever reaches it may run code there; on macOS and Windows it keeps to the
loopback interface. A Ray that one command starts does so everywhere, by the switch that Ray has for it. Ray Serve has
none for its gRPC servers, so these are told in the processes that start them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from urllib.parse import urlsplit

from drpo_rewards.errors import ServiceUnavailableError

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # read when Ray is imported; its processes inherit it
LISTEN_HOST = "DRPO_LISTEN_HOST"  # where Serve's gRPC listener listens; Ray's processes inherit it
CLIENT_PORT = 10_001  # Ray's, of ray:// addresses that name none
CONNECT_S = 5.0


def start(num_cpus: int, listen_host: str = "127.0.0.1") -> None:
    """Start a Ray that is alone, quietly. It ends with this process, or with `ray.shutdown()`.

    num_cpus: what it may hand out.
    listen_host: where Serve's gRPC listener shall be reached. HTTP's is told by Serve's own options.
    """
    import ray

    with alone(listen_host):
        ray.init(
            address="local",
            num_cpus=num_cpus,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"worker_process_setup_hook": f"{__name__}.{tell_grpc_servers.__name__}"},
        )


def join(address: str) -> None:
    """Connect to the Ray at `address` (`auto`, HOST:PORT or ray://HOST:PORT), quietly; it may be one that is alone.

    Raises ServiceUnavailableError where there is none.
    """
    import ray

    try:
        with alone() if _is_alone(address) else nullcontext():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ServiceUnavailableError(f"no Ray can be reached at {address}: {why}") from error


@contextmanager
def alone(listen_host: str = "127.0.0.1") -> Iterator[None]:
    """Around `ray.init`: this machine's address is 127.0.0.1, for the Ray that it starts or that it joins."""
    from ray._private import ray_constants

    before = {name: os.environ.get(name) for name in (SWITCH, LISTEN_HOST)}
    read_before = ray_constants.ENABLE_RAY_CLUSTER
    os.environ |= {SWITCH: "0", LISTEN_HOST: listen_host}
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = read_before
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def tell_grpc_servers() -> None:
    """In each of Ray's worker processes, before anything else: a server for every interface is one for the right one.

    Serve's listener has a port of its own; a port that the system chooses is one for calls between replicas.
    """
    from grpc.aio._server import Server  # what grpc.aio.server() makes, and what Serve derives its own from

    host = os.environ[LISTEN_HOST]
    add_insecure_port = Server.add_insecure_port

    def add_here(server: Server, address: str) -> int:
        name, _, port = address.rpartition(":")
        if name == "[::]":
            name = "127.0.0.1" if port == "0" else f"[{host}]" if ":" in host else host
        return add_insecure_port(server, f"{name}:{port}")

    Server.add_insecure_port = add_here  # type: ignore[method-assign]


def grpc_is_kept() -> bool:
    """Whether this process is connected to a Ray whose gRPC servers have been told."""
    import ray

    return "worker_process_setup_hook" in ray.get_runtime_context().runtime_env


def _is_alone(address: str) -> bool:
    """Whether it answers on the loopback interface and not at this machine's own address.

    Raises OSError where it does not answer at all, which Ray itself would go on trying for minutes.
    """
    from ray._private import services

    if address.startswith("ray://"):  # a client's connection, which does not ask where it comes from
        parts = urlsplit(address)
        _connect(parts.hostname, parts.port or CLIENT_PORT)
        return False
    with alone():
        parts = urlsplit(f"//{services.canonicalize_bootstrap_address(address)}")
    _connect(parts.hostname, parts.port)
    if parts.hostname != "127.0.0.1":
        return False
    try:
        _connect(services.get_node_ip_address(), parts.port)
    except OSError:
        return True
    return False


def _connect(host: str | None, port: int | None) -> None:
    socket.create_connection((host or "", port or 0), CONNECT_S).close()
