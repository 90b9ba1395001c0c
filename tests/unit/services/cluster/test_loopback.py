"""Addresses of the servers of a local Ray. tests/integration/services/test_rewards_cli.py checks a whole service."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from drpo_rewards.cluster import loopback
from drpo_rewards.cluster.local_ray import join_ray
from drpo_rewards.errors import ServiceUnavailableError
from drpo_rewards.serving.listeners import free_port

SERVERS = """
import asyncio, grpc, psutil, sys
from drpo_rewards.cluster.loopback import bind_grpc_servers

async def main():
    bind_grpc_servers()
    servers = [grpc.aio.server() for _ in sys.argv[1:]]
    for server, address in zip(servers, sys.argv[1:]):
        server.add_insecure_port(address)
        await server.start()
    listening = [connection for connection in psutil.Process().net_connections("tcp") if connection.status == "LISTEN"]
    print(*sorted(connection.laddr.ip.removeprefix("::ffff:") for connection in listening))

asyncio.run(main())
"""


def test_servers_for_calls_between_replicas_stay_on_this_machine() -> None:
    """A server with an address of its own, as a gateway's, listens there."""
    addresses = ["[::]:0", f"127.0.0.2:{free_port('127.0.0.2')}"]
    command = [sys.executable, "-c", SERVERS, *addresses]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.stdout.split() == ["127.0.0.1", "127.0.0.2"], answer.stderr


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import ray_constants

    monkeypatch.setenv(loopback.SWITCH, "1")
    before = ray_constants.ENABLE_RAY_CLUSTER
    with loopback.loopback_only():
        assert os.environ[loopback.SWITCH] == "0"
        assert ray_constants.ENABLE_RAY_CLUSTER is False
    assert os.environ[loopback.SWITCH] == "1"
    assert ray_constants.ENABLE_RAY_CLUSTER is before


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "Invalid address format"),
        ("127.0.0.1:{port}", "Connection refused"),
        ("ray://127.0.0.1:{port}", "Connection refused"),
    ],
)
def test_joining_a_ray_that_does_not_run(address: str, why: str) -> None:
    address = address.format(port=free_port())
    with pytest.raises(ServiceUnavailableError, match=f"no Ray can be reached at {address}: .*{why}"):
        join_ray(address)
