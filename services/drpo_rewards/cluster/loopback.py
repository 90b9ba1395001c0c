"""Keep a local Ray to the loopback interface, so that no other machine reaches it.

On Linux, Ray listens on every interface, and anyone who reaches it can run code there. On macOS and Windows it keeps to
the loopback interface, and a switch of Ray makes it do so everywhere. Ray Serve's gRPC servers have no such switch, so
they are patched in each process that starts one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # read when Ray is imported; its processes inherit it
LISTEN_HOST = "DRPO_LISTEN_HOST"  # the address on which Serve's gRPC listens; Ray's processes inherit it
CLIENT_PORT = 10_001  # Ray's default for ray:// addresses
CONNECT_S = 5.0


@contextmanager
def loopback_only(listen_host: str = "127.0.0.1") -> Iterator[None]:
    """Make 127.0.0.1 this machine's address for the Ray that `ray.init` starts or joins inside this block."""
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


def bind_grpc_servers() -> None:
    """Make gRPC servers that would listen on every interface listen on $DRPO_LISTEN_HOST. Runs in each Ray worker.

    Serve's listener has a fixed port. A server on a port that the system chooses is for calls between replicas, which
    stay on 127.0.0.1.
    """
    from grpc.aio._server import Server  # grpc.aio.server() returns one, and Serve derives its own class from it

    host = os.environ[LISTEN_HOST]
    add_insecure_port = Server.add_insecure_port

    def add_port_on_host(server: Server, address: str) -> int:
        name, _, port = address.rpartition(":")
        if name == "[::]":
            name = "127.0.0.1" if port == "0" else f"[{host}]" if ":" in host else host
        return add_insecure_port(server, f"{name}:{port}")

    Server.add_insecure_port = add_port_on_host  # type: ignore[method-assign]


def grpc_is_bound() -> bool:
    """Return whether the Ray that this process is connected to was started with `bind_grpc_servers`."""
    import ray

    return "worker_process_setup_hook" in ray.get_runtime_context().runtime_env


def listens_on_loopback_only(address: str) -> bool:
    """Return whether the Ray at `address` answers on the loopback interface but not at this machine's own address.

    Raises:
        OSError: nothing answers there. Ray itself would keep trying for minutes.
    """
    from ray._private import services

    if address.startswith("ray://"):  # a client's connection works from either interface
        parts = urlsplit(address)
        _connect(parts.hostname, parts.port or CLIENT_PORT)
        return False
    with loopback_only():
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
