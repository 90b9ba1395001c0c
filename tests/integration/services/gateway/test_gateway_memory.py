"""Memory of the gateway, through which bodies pass, after a load."""

from __future__ import annotations

import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
import psutil
import pytest
import ray
from ray.serve.context import _get_global_client
from support.service import address, replica_pid

from drpo_rewards import RankingClient, serving
from drpo_rewards.cluster.memory import ENVIRONMENT

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


SETTINGS, HEADERS, DATA, PING = 4, 1, 0, 6  # kinds of frames (RFC 9113, section 6)
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4
# POST, http, path, authority, content type and `te`, in the plainest form that HPACK (RFC 7541) has for each.
RANK = (
    b"\x83\x86\x04\x1d/drpo.rewards.v1.Ranking/Rank\x01\x09localhost\x0f\x10\x10application/grpc\x00\x02te\x08trailers"
)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def read_frame(stream: BinaryIO) -> tuple[int, int, bytes]:
    """Returns its kind, flags and payload."""
    length_and_kind, flags, _ = struct.unpack(">IBI", stream.read(9))
    return length_and_kind & 0xFF, flags, stream.read(length_and_kind >> 8)


def test_little_of_a_message_is_read_ahead(service: serving.RunningService) -> None:
    """gRPC keeps a buffer of about what a client may send ahead, as long as a connection is open.

    How large it becomes is a matter of chance, so this looks at what the gateway says over HTTP/2: how much may be
    sent, and that it does not measure the connection, with pings after pieces of a message, to allow more later.
    """
    host, port = address(service, "grpc").removeprefix("grpc://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        kind, _, payload = read_frame(stream)
        assert kind == SETTINGS
        window = dict(struct.iter_unpack(">HI", payload))[INITIAL_WINDOW_SIZE]
        assert window == 1_000_000  # gRPC's 65,535 without measuring would slow down clients that are far away
        connection.sendall(frame(HEADERS, END_HEADERS, 1, RANK))
        connection.sendall(frame(DATA, 0, 1, struct.pack(">BI", 0, 16_000) + bytes(16_000)))
        connection.sendall(frame(DATA, END_STREAM, 1))
        frames: list[tuple[int, int, bytes]] = []
        while not frames or frames[-1][:2] != (HEADERS, END_HEADERS | END_STREAM):  # the status: that is no request
            frames.append(read_frame(stream))
    assert not [flags for kind, flags, _ in frames if kind == PING]
    assert b"grpc-status" in frames[-1][2]
