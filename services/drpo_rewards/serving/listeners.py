"""Start Ray Serve with its listeners. A cluster has one Serve, so all of its applications share these ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import serve
from ray.serve._private import api, client
from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions

from drpo_rewards.errors import ConfigError, ServiceUnavailableError
from drpo_rewards.serving.gateway.grpc import SERVICER_FUNCTIONS
from drpo_rewards.serving.ports import reserve_port


@dataclass(frozen=True)
class Addresses:
    """The listeners of Ray Serve.

    Attributes:
        http: HOST:PORT; None if there is no such listener.
        grpc: HOST:PORT; None if there is no such listener.
        started_serve: whether `start_serve` started Ray Serve.
        reserved: sockets that keep other services from the ports as long as they are open.
    """

    http: str | None
    grpc: str | None
    started_serve: bool
    reserved: list[socket.socket] = field(default_factory=list)


def start_serve(host: str, http_port: int | None, grpc_port: int | None, timeout_s: float) -> Addresses:
    """Start Ray Serve with these listeners, or return the addresses of the Ray Serve that runs already.

    Args:
        host: the address to listen on.
        http_port, grpc_port: None for no such listener, 0 for any free port.
        timeout_s: seconds until the listeners must be up.

    Raises:
        ConfigError: the Ray Serve that runs already listens on other ports, or a port is taken.
        ServiceUnavailableError: the listeners were not up in time.
    """
    running = _running_serve()
    if running is not None:
        _check_port("HTTP", http_port, running.http)
        _check_port("gRPC", grpc_port, running.grpc)
        return running
    listens = http_port is not None or grpc_port is not None
    # With gRPC, Serve always has an HTTP listener too. It takes a free port and needs the same keys.
    ports = [http_port or 0, *([grpc_port] if grpc_port is not None else [])]
    reserved = []
    try:
        if listens and _listens_here():
            for port in ports:
                reserved.append(reserve_port(host, port))
            ports = [holder.getsockname()[1] for holder in reserved]
        else:
            ports = [port or free_port(host) for port in ports]
        with _patience(timeout_s):
            serve.start(
                proxy_location="HeadOnly" if listens else "Disabled",
                http_options=HTTPOptions(host=host, port=ports[0]),
                grpc_options=gRPCOptions(
                    port=ports[1] if grpc_port is not None else 0,
                    grpc_servicer_functions=SERVICER_FUNCTIONS if grpc_port is not None else [],
                    enable_reflection=False,
                ),
            )
    except BaseException:
        for holder in reserved:
            holder.close()
        raise
    return Addresses(
        http=f"{_for_url(host)}:{ports[0]}" if listens else None,
        grpc=f"{_for_url(host)}:{ports[1]}" if grpc_port is not None else None,
        started_serve=True,
        reserved=reserved,
    )


def _listens_here() -> bool:
    """Return whether Serve will listen on this machine: on that of Ray's head, and this program runs there too."""
    if ray.util.client.ray.is_connected():
        return False
    here = ray.get_runtime_context().get_node_id()
    return any(
        node["NodeID"] == here and "node:__internal_head__" in node["Resources"]
        for node in ray.nodes()
        if node["Alive"]
    )


@contextmanager
def _patience(timeout_s: float) -> Iterator[None]:
    """Let Serve wait this long for its listeners. It has no setting for that, and gives up after a minute."""
    before = api.HTTP_PROXY_TIMEOUT, client.HTTP_PROXY_TIMEOUT
    api.HTTP_PROXY_TIMEOUT = client.HTTP_PROXY_TIMEOUT = int(max(1.0, timeout_s))
    try:
        yield
    except TimeoutError as error:
        raise ServiceUnavailableError(
            f"Ray Serve was not up after {timeout_s:g} s; end other programs, or raise deploy_timeout_s"
        ) from error
    finally:
        api.HTTP_PROXY_TIMEOUT, client.HTTP_PROXY_TIMEOUT = before


def _for_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _running_serve() -> Addresses | None:
    """Return the addresses of the cluster's Ray Serve; None if no Serve runs."""
    try:
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return None
    http: Any = ray.get(controller.get_http_config.remote())
    grpc: Any = ray.get(controller.get_grpc_config.remote())
    location: Any = ray.get(controller.get_proxy_location.remote())
    listens = location != ProxyLocation.Disabled
    return Addresses(
        http=f"{http.host}:{http.port}" if listens else None,
        grpc=f"{http.host}:{grpc.port}" if listens and grpc.grpc_servicer_functions else None,
        started_serve=False,
    )


def _check_port(protocol: str, requested: int | None, address: str | None) -> None:
    if requested is None:
        return
    if address is None:
        raise ConfigError(f"this cluster's Ray Serve runs without {protocol}; shut it down (serve.shutdown()) first")
    if requested not in (0, int(address.rpartition(":")[2])):
        raise ConfigError(
            f"this cluster's Ray Serve already has {protocol} on {address}; it cannot also listen on port {requested}"
        )


def free_port(host: str = "127.0.0.1") -> int:
    """Find a TCP port that is free on `host` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
