"""Ports that are taken, kept, or not to be had."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.ports import reserve_port

RESERVE = "import sys; from drpo_rewards.serving.ports import reserve_port; reserve_port(sys.argv[1], int(sys.argv[2]))"


@pytest.fixture(autouse=True)
def short_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drpo_rewards.serving.ports.ASK_S", 0.1)  # the listeners here never answer


def open_like_serve(port: int, host: str = "127.0.0.1") -> socket.socket:
    """Listens as Ray Serve does, with SO_REUSEPORT."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen()
    return listener


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with open_like_serve(0) as opened:
        yield opened


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_refused(listener: socket.socket, host: str) -> None:
    """Although SO_REUSEPORT would let a second listener have it."""
    port = listener.getsockname()[1]
    expected = rf"{host}:{port} is taken by another program \(process {os.getpid()}: .*choose another port"
    with pytest.raises(ConfigError, match=expected):
        reserve_port(host, port)


def test_a_listener_on_all_addresses_has_each_of_them() -> None:
    with open_like_serve(0, "0.0.0.0") as everywhere, pytest.raises(ConfigError, match="is taken"):
        reserve_port("127.0.0.1", everywhere.getsockname()[1])


def test_a_reserved_port_is_for_serve_alone() -> None:
    with reserve_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ConfigError, match="is taken"):
            reserve_port("127.0.0.1", port)
        elsewhere = subprocess.run([sys.executable, "-c", RESERVE, "127.0.0.1", str(port)], stderr=subprocess.PIPE)
        assert b"is taken" in elsewhere.stderr
        with open_like_serve(port) as served, socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
            accepted = served.accept()[0]  # calls reach the listener, not the socket that holds the port
            assert accepted.getpeername() == caller.getsockname()
            accepted.close()
    reserve_port("127.0.0.1", port).close()


def test_the_connections_of_a_service_that_has_ended_are_no_obstacle(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as caller:
        served = listener.accept()[0]
        served.close()  # the side that closes first keeps the port for a minute
        assert caller.recv(1) == b""
    listener.close()
    reserve_port("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("192.0.2.1", 0, "not an address of this machine"),
        ("nowhere.invalid", 0, "not an address of this machine"),
        ("", 70000, "no port 70000"),
        ("a" * 300, 0, "not an address of this machine"),
    ],
)
def test_what_no_machine_has_is_refused(host: str, port: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        reserve_port(host, port)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6() -> None:
    try:
        holder = reserve_port("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 address here")
    with holder, pytest.raises(ConfigError, match="is taken"):
        reserve_port("::1", holder.getsockname()[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_port_for_root_alone() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))
    if first < 81:
        pytest.skip("any user may have port 80 here")
    code = f"import os; os.setuid(65534); {RESERVE}"
    answer = subprocess.run(
        [sys.executable, "-c", f"import drpo_rewards.serving.ports; {code}", "127.0.0.1", "80"], stderr=subprocess.PIPE
    )
    assert b"choose a port from 1024 on" in answer.stderr, answer.stderr
