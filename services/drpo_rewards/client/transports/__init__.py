"""Ways to reach a ranking service: `base` says what one is, and each scheme of an address has a file.

`open_transport` picks one, and imports it only then: a client of one needs nothing of the others.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from drpo_rewards.client.transports.base import Transport


def open_transport(address: str, api_key: str | None) -> Transport:
    """Open the transport of an address. It connects when it is first used.

    Args:
        address: `http(s)://host:port[/app]`, `grpc://host:port[/app]` or `serve://app`.
        api_key: for services that ask for one.

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
