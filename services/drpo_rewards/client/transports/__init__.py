"""Transports, the ways to reach a ranking service: `base` defines them, and each kind of address has one file.

`open_transport` imports only the transport that an address needs, so a client needs no packages of the others.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from drpo_rewards.api.keys import check_key
from drpo_rewards.client.transports.base import Transport
from drpo_rewards.errors import ConfigError

FORMS = "http://HOST:PORT, grpc://HOST:PORT or serve://APP"
ROUTES = ("v1", "v2", "rank", "score", "compare", "rerank", "health", "metrics", "docs", "openapi.json")


def open_transport(address: str, api_key: str | None, use_proxies: bool = False) -> Transport:
    """Open the transport of an address. It connects when it is first used.

    Args:
        address: `http(s)://host:port[/app]`, `grpc://host:port[/app]` or `serve://app`.
        api_key: the key, if the service requires one.
        use_proxies: go through the proxies that the environment names, e.g. $HTTPS_PROXY.

    Raises:
        ConfigError: the address is none of these, or the key cannot travel in a header.
    """
    if not isinstance(address, str) or not isinstance(api_key, str | None):
        raise ConfigError(f"the address and the key are texts, not {address!r} and a {type(api_key).__name__}")
    address = address.strip()
    parts = _split(address)
    key = check_key(api_key, "the API key") if api_key else None
    path = parts.path.strip("/")
    if parts.scheme == "serve":
        from drpo_rewards.client.transports.serve import ServeTransport

        return ServeTransport(parts.netloc)
    route = next((segment for segment in path.split("/") if segment in ROUTES), None)
    if route is not None:
        base = f"{parts.scheme}://{parts.netloc}/{path.partition(route)[0]}".rstrip("/")
        raise ConfigError(f"cannot use the address {address!r}: it ends before /{route}; write {base}")
    if parts.scheme == "grpc":
        from drpo_rewards.client.transports.grpc import GrpcTransport

        if parts.port is None:
            raise ConfigError(f"cannot use the address {address!r}: it has no port; write grpc://HOST:PORT")
        return GrpcTransport(parts.netloc, path or "ranking", key, use_proxies)
    from drpo_rewards.client.transports.http import HttpTransport

    return HttpTransport(f"{parts.scheme}://{parts.netloc}/{path}".rstrip("/"), key, use_proxies)


def _split(address: str) -> SplitResult:
    """Split an address, or say what is wrong with it."""
    hint = f"write {FORMS}"
    try:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https", "grpc", "serve") and parts.hostname:
            _ = parts.port  # raises for what is not a port
            if parts.username is not None:
                raise ValueError("it names a user; give a key by api_key or --api-key")
            if parts.query or parts.fragment:
                raise ValueError(f"it has more than a path; {hint}")
            if not address.isascii() or not address.isprintable() or " " in address:
                raise ValueError(f"it has letters that an address cannot have; {hint}")
            return parts
        if "://" not in address and parts.path and address:
            hint = f"did you mean http://{address.strip('/')}?"
        raise ValueError(hint)
    except ValueError as error:
        reason = str(error)
        raise ConfigError(f"cannot use the address {address!r}: {reason[:1].lower()}{reason[1:]}") from None
