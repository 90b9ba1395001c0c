"""Ports: who has them, and taking them so that no second service can.

The gateways of one service share its ports by SO_REUSEPORT. So two services could listen on one port too, and each call
would go to either of them, if nothing looked.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable
from typing import Any

from drpo_rewards.errors import ConfigError

CONNECT_S = 1.0  # a listener on this machine answers at once
ASK_S = 1.0  # for the question whether a listener is a ranking service
PATIENCE_S = 20.0  # for the answer of a gateway that has just been started, on a busy machine
FIRST_UNPRIVILEGED = 1024
BACKLOG = 2048  # connections that wait until a gateway takes them

# A gateway names its service in this header of every response.
APPLICATION_HEADER = "x-application"


def reserve_port(host: str, port: int) -> socket.socket:
    """Take a port that nobody has, so that from now on only the gateways of one service listen on it.

    The socket does not listen. As long as it is open, the system lets only sockets with SO_REUSEPORT of the same user
    have the port, and `reserve_port` fails in every other process.

    Args:
        host: the address to listen on.
        port: the port; 0 takes any free one, see `getsockname` of the result.

    Raises:
        ConfigError: the port or the address cannot be used. The message says who has it, and what to do.
    """
    family, address = _resolve(host, port)
    holder = socket.socket(family)
    try:
        # The connections of a service that has just ended linger for a minute and must not count.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(address)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        if hasattr(socket, "SO_REUSEPORT"):
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Where the system lets two sockets have one port, this finds the one that listens.
        if port and _is_answered(_reachable_host(host), port):
            raise OSError(errno.EADDRINUSE, "")
    except OSError as error:
        holder.close()
        raise ConfigError(_explain(error, host, port)) from None
    return holder


def open_shared_port(host: str, port: int) -> socket.socket:
    """Listen on a port that other gateways of the same service may have too. Connections wait until they are taken.

    Raises:
        ConfigError: the port or the address cannot be used.
    """
    family, address = _resolve(host, port)
    listener = socket.socket(family)
    try:
        for option in ("SO_REUSEADDR", "SO_REUSEPORT"):
            if hasattr(socket, option):
                listener.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_explain(error, host, port)) from None
    return listener


def check_shared_port(host: str, port: int, application: str) -> None:
    """Check that nobody but gateways of one service listens on a port.

    Args:
        application: the name of the service.

    Raises:
        ConfigError: somebody else does.
    """
    reachable = _reachable_host(host)
    if _is_answered(reachable, port) and not _is_gateway_of(application, f"{to_url_host(reachable)}:{port}"):
        hint = "if it is Ray Serve's own proxy, set `proxy_location: Disabled` in the Serve config"
        raise ConfigError(f"{_explain(OSError(errno.EADDRINUSE, ''), host, port)}; {hint}")


def to_url_host(host: str) -> str:
    """Return an address as it is written before a port: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return the kind of an address of this machine, and the address as sockets take it."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"there is no port {port}; ports are 1 to 65535, and 0 takes a free one")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"{host!r} is not an address of this machine; {_list_addresses()}") from None
    return family, address


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{host}:{port} is taken by {describe_listener(host, port)}; end it, or choose another port (0: a free one)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host!r} is not an address of this machine; {_list_addresses()}"
    if error.errno in (errno.EACCES, errno.EPERM) and port < FIRST_UNPRIVILEGED:
        return f"this user may not listen on {host}:{port}; choose a port from {FIRST_UNPRIVILEGED} on"
    return f"{host}:{port} is not available: {error.strerror or error}"


def describe_listener(host: str, port: int) -> str:
    """Describe who listens on a port: whether it is a ranking service, and the process, if they can be found out."""
    address = f"{to_url_host(_reachable_host(host))}:{port}"
    what = "a ranking service" if _is_ours_by_http(address) or _is_ours_by_grpc(address) else "another program"
    process = _find_process(port)
    return f"{what} ({process})" if process else what


def _is_ours_by_http(address: str) -> bool:
    import httpx

    try:
        answer = httpx.get(f"http://{address}/health/live", timeout=ASK_S, trust_env=False)
        return answer.json() == {"status": "live"}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


def _is_ours_by_grpc(address: str, application: str | None = None) -> bool:
    """Return whether a ranking service answers, or the one of this name."""
    import grpc

    metadata = [("application", application)] if application is not None else []
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/drpo.rewards.v1.Ranking/ListModels")(b"", timeout=ASK_S, metadata=metadata)
        except grpc.RpcError as error:
            # Another program has no such method; ours may ask for a key. NOT_FOUND: it has another name.
            return error.code() == grpc.StatusCode.UNAUTHENTICATED
    return True


def _is_gateway_of(application: str, address: str) -> bool:
    """Return whether a gateway of this service listens, over HTTP or gRPC. One that starts may be silent at first."""
    import httpx

    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            answer = httpx.get(f"http://{address}/health/live", timeout=ASK_S, trust_env=False)
            return answer.headers.get(APPLICATION_HEADER) == application
        except httpx.TimeoutException:
            continue
        except (httpx.HTTPError, httpx.InvalidURL):
            return _is_ours_by_grpc(address, application)
    return False


def _find_process(port: int) -> str:
    """Describe the process that listens on a port, by the command that started it; "" if it cannot be seen."""
    try:
        import psutil
    except ModuleNotFoundError:
        return ""
    try:
        found = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        ]
        pid = next(filter(None, found), None)
        if pid is None:
            return ""
        process = psutil.Process(pid)
        # The listener of a service is a process of Ray, far below the command that a user can end.
        owner = next((above for above in process.parents() if _is_command(above.cmdline())), process)
        command = " ".join(owner.cmdline()) or owner.name()
        return f"process {owner.pid}: {command[:80].strip()}"
    except psutil.Error:
        return ""


def _is_command(words: Iterable[str]) -> bool:
    """Return whether these are the words of one of our commands, which `python -m` may have started."""
    return any(word == "drpo_rewards" or word.endswith(("drpo", "drpo-rewards")) for word in words)


def _is_answered(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), CONNECT_S) as connection:
            # A connection to a free port of this machine may, rarely, be answered by itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False


def _reachable_host(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)


def _list_addresses() -> str:
    return "use 127.0.0.1 for this machine alone, 0.0.0.0 for all of its addresses, or one of them"
