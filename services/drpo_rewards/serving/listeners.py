"""The ports of a service, which are chosen and taken before it starts, and Ray Serve without listeners of its own."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import ray
from ray import serve

from drpo_rewards.serving.ports import reserve_port, to_url_host


@dataclass(frozen=True)
class Ports:
    """The ports of one service.

    Attributes:
        host: the address on which it listens, as in a URL.
        http, grpc: None for no such listener.
        reserved: sockets that keep other services from the ports as long as they are open.
    """

    host: str
    http: int | None
    grpc: int | None
    reserved: list[socket.socket] = field(default_factory=list)

    def release(self) -> None:
        """Let others have the ports."""
        for holder in self.reserved:
            holder.close()


def choose_ports(host: str, http_port: int | None, grpc_port: int | None) -> Ports:
    """Take the ports on which a service will listen.

    Args:
        host: the address to listen on.
        http_port, grpc_port: None for no such listener, 0 for any free port.

    Raises:
        ConfigError: a port is taken, or the address cannot be used.
    """
    reserved: list[socket.socket] = []
    ports: list[int | None] = []
    here = _listens_here()
    try:
        for port in (http_port, grpc_port):
            if port is None:
                ports.append(None)
            elif here:
                reserved.append(reserve_port(host, port))
                ports.append(reserved[-1].getsockname()[1])
            else:
                ports.append(port or free_port())
    except BaseException:
        for holder in reserved:
            holder.close()
        raise
    return Ports(to_url_host(host), ports[0], ports[1], reserved)


def start_serve() -> bool:
    """Start Ray Serve unless it runs already, without its own listeners. Return whether this call started it."""
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        return False
    except ValueError:
        serve.start(proxy_location="Disabled")
        return True


def free_port(host: str = "127.0.0.1") -> int:
    """Find a TCP port that is free on `host` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _listens_here() -> bool:
    """Return whether gateways will listen on this machine: on that of Ray's head, and this program runs there too."""
    if ray.util.client.ray.is_connected():
        return False
    here = ray.get_runtime_context().get_node_id()
    return any(
        node["NodeID"] == here and "node:__internal_head__" in node["Resources"]
        for node in ray.nodes()
        if node["Alive"]
    )
