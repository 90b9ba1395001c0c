"""Transports, the ways to reach a ranking service: `base` defines them, and each kind of address has one file.

`open_transport` imports only the transport that an address needs, so a client needs no packages of the others.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from drpo_rewards.client.transports.base import Transport


def open_transport(address: str, api_key: str | None) -> Transport:
    """Open the transport of an address. It connects when it is first used.

    Args:
        address: `http(s)://host:port[/app]`, `grpc://host:port[/app]` or `serve://app`.
        api_key: the key, if the service requires one.

    Raises:
        ValueError: the address is none of these.
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and parts.netloc:
        from drpo_rewards.client.transports.http import HttpTransport

        return HttpTransport(address.rstrip("/"), api_key)
    if parts.scheme == "grpc" and parts.netloc:
        from drpo_rewards.client.transports.grpc import GrpcTransport

        return GrpcTransport(parts.netloc, parts.path.strip("/") or "ranking", api_key)
    if parts.scheme == "serve" and parts.netloc:
        from drpo_rewards.client.transports.serve import ServeTransport

        return ServeTransport(parts.netloc)
    raise ValueError(f"cannot use the address {address!r}; write http://HOST:PORT, grpc://HOST:PORT or serve://APP")
