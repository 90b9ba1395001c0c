"""Memory of the gateway, through which bodies pass, after a load."""

from __future__ import annotations

import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import ray
from ray.serve.context import _get_global_client
from support.service import address, replica_pid

from drpo_rewards import RankingClient, serving
from drpo_rewards.cluster.memory import ENVIRONMENT
from drpo_rewards.serving.gateway.grpc import LOOKAHEAD_BYTES

pytestmark = pytest.mark.integration

LARGE = np.random.default_rng(0).integers(0, 256, (24, 1024, 1024, 3), dtype=np.uint8)  # 75 MB


def own_mib(pid: int) -> float:
    """Resident memory without Ray's object store, which processes share."""
    memory = psutil.Process(pid).memory_info()
    return (memory.rss - memory.shared) / 2**20


def test_the_gateway_starts_with_its_memory_settings(service: serving.RunningService) -> None:
    """The C library reads them from the environment of a process at its start, and nowhere later."""
    environment = psutil.Process(replica_pid("gateway")).environ()
    assert {name: environment.get(name) for name in ENVIRONMENT} == ENVIRONMENT


def test_the_gateway_has_the_environment_of_its_job_too(service: serving.RunningService) -> None:
    """Serve gives it only to deployments that ask for none: the job's packages would be missing."""
    of_job = dict(ray.get_runtime_context().runtime_env)
    assert of_job
    deployments = _get_global_client().get_serve_details()["applications"][service.app_name]["deployments"]
    given = deployments["gateway"]["deployment_config"]["ray_actor_options"]["runtime_env"]
    assert given == of_job | {"env_vars": of_job.get("env_vars", {}) | ENVIRONMENT}


@pytest.mark.thorough
def test_memory_goes_back_after_large_bodies(service: serving.RunningService) -> None:
    """The gateway holds several bodies at once; after the load it is as small as before."""
    pid = replica_pid("gateway")

    def send(count: int) -> None:
        with RankingClient(address(service, "http"), timeout_s=200) as client:
            for _ in range(count):
                assert client.rank("p", LARGE, rewards={"corner": 1}).order

    with RankingClient(address(service, "http"), timeout_s=200) as client:  # warm up
        for _ in range(20):
            client.rank("p", LARGE[:, :64, :64], rewards={"corner": 1})
    before = own_mib(pid)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(send, [3] * 4))
    for _ in range(60):
        after = own_mib(pid)
        if after < 1.3 * before:
            return
        time.sleep(1)
    raise AssertionError(f"MiB before {before:.0f}, a minute after {after:.0f}")


def test_a_client_may_send_an_ordinary_group_ahead(service: serving.RunningService) -> None:
    """gRPC's buffer for the next read grows with it, and is kept while a connection is open and nothing is sent.

    How large it becomes is a matter of chance, so this reads what the gateway tells a client over HTTP/2 (RFC 9113).
    """
    host, port = address(service, "grpc").removeprefix("grpc://").rsplit(":", 1)
    empty_settings = struct.pack(">IBI", 4, 0, 0)  # 24 bits of length, 8 of kind, 8 of flags, 32 of stream
    with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
        length_and_kind, _, _ = struct.unpack(">IBI", stream.read(9))
        assert length_and_kind & 0xFF == 4  # SETTINGS
        settings = dict(struct.iter_unpack(">HI", stream.read(length_and_kind >> 8)))
    assert settings[4] == LOOKAHEAD_BYTES  # SETTINGS_INITIAL_WINDOW_SIZE
