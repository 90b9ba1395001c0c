"""Keep a local Ray to the loopback interface, so that no other machine reaches it.

On Linux, Ray listens on every interface, and anyone who reaches it can run code there. On macOS and Windows it keeps to
the loopback interface, and a switch of Ray makes it do so everywhere. The gRPC servers of Ray Serve's replicas have no
such switch, so they are patched in each process that starts one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # read when Ray is imported; its processes inherit it
EVERYWHERE = "[::]"  # as Ray Serve writes it
CLIENT_SCHEME = "ray://"
CLIENT_PORT = 10_001  # Ray's default for these addresses
CONNECT_S = 5.0


@contextmanager
def loopback_only() -> Iterator[None]:
    """Make 127.0.0.1 this machine's address for the Ray that `ray.init` starts or joins inside this block."""
    from ray._private import ray_constants

    before = os.environ.get(SWITCH)
    read_before = ray_constants.ENABLE_RAY_CLUSTER
    os.environ[SWITCH] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = read_before
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before


def bind_grpc_servers() -> None:
    """Make gRPC servers that would listen on every interface listen on 127.0.0.1. Runs in each Ray worker.

    These are the servers for calls between replicas. A gateway names the address on which it listens.
    """
    from grpc.aio._server import Server  # grpc.aio.server() returns one, and Serve derives its own class from it

    add_insecure_port = Server.add_insecure_port

    def add_port_on_loopback(server: Server, address: str) -> int:
        name, _, port = address.rpartition(":")
        return add_insecure_port(server, f"127.0.0.1:{port}" if name == EVERYWHERE else address)

    Server.add_insecure_port = add_port_on_loopback  # type: ignore[method-assign]


def listens_on_loopback_only(address: str) -> bool:
    """Return whether the Ray at `address` answers on the loopback interface but not at this machine's own address.

    Raises:
        OSError: nothing answers there. Ray itself would keep trying for minutes.
    """
    from ray._private import services

    host, port = find_endpoint(address)
    _connect(host, port)
    if address.startswith(CLIENT_SCHEME) or host != "127.0.0.1":  # a client's connection works from either interface
        return False
    try:
        _connect(services.get_node_ip_address(), port)
    except OSError:
        return True
    return False


def find_endpoint(address: str) -> tuple[str, int]:
    """Return the host and port that `auto`, HOST:PORT or ray://HOST:PORT means.

    Raises:
        OSError, ValueError: there is no Ray that `auto` means, or it is no address.
    """
    from ray._private import services

    if address.startswith(CLIENT_SCHEME):
        parts = urlsplit(address)
        return parts.hostname or "", parts.port or CLIENT_PORT
    with loopback_only():
        parts = urlsplit(f"//{services.canonicalize_bootstrap_address(address)}")
    return parts.hostname or "", parts.port or 0


def _connect(host: str, port: int) -> None:
    socket.create_connection((host, port), CONNECT_S).close()
