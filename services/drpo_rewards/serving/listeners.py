"""Start Ray Serve with its listeners. A cluster has one Serve, so all of its applications share these ports."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions

from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.gateway.grpc import SERVICER_FUNCTIONS


@dataclass(frozen=True)
class Addresses:
    """The listeners of Ray Serve.

    Attributes:
        http: HOST:PORT; None if there is no such listener.
        grpc: HOST:PORT; None if there is no such listener.
        started_serve: whether `start_serve` started Ray Serve.
    """

    http: str | None
    grpc: str | None
    started_serve: bool


def start_serve(host: str, http_port: int | None, grpc_port: int | None) -> Addresses:
    """Start Ray Serve with these listeners, or return the addresses of the Ray Serve that runs already.

    Args:
        host: the address to listen on.
        http_port, grpc_port: None for no such listener, 0 for any free port.

    Raises:
        ConfigError: the Ray Serve that runs already listens on other ports.
    """
    running = _running_serve()
    if running is not None:
        _check_port("HTTP", http_port, running.http)
        _check_port("gRPC", grpc_port, running.grpc)
        return running
    listens = http_port is not None or grpc_port is not None
    # With gRPC, Serve always has an HTTP listener too. It takes a free port and needs the same keys.
    http_port = http_port or free_port(host)
    grpc_port = free_port(host) if grpc_port == 0 else grpc_port
    serve.start(
        proxy_location="HeadOnly" if listens else "Disabled",
        http_options=HTTPOptions(host=host, port=http_port),
        grpc_options=gRPCOptions(
            port=grpc_port or 0,
            grpc_servicer_functions=SERVICER_FUNCTIONS if grpc_port is not None else [],
            enable_reflection=False,
        ),
    )
    return Addresses(
        http=f"{host}:{http_port}" if listens else None,
        grpc=f"{host}:{grpc_port}" if grpc_port is not None else None,
        started_serve=True,
    )


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
