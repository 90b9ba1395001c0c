"""The check of a Ray that a run shall join."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from drpo.checks import Plan
from drpo.checks.ray import check_ray
from drpo.config import load_config
from drpo_rewards.serving.listeners import free_port


def find_wrong(override: str, verb: str = "train") -> list[str]:
    findings = check_ray(Plan(load_config("shapes", [override]), verb))
    return [finding.found for finding in findings if finding.state == "wrong"]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nobody.invalid:6379", "6379x"])
def test_a_ray_that_does_not_answer(address: str) -> None:
    wanted = address.format(port=free_port())
    (line,) = find_wrong(f"run.ray_address={wanted}")
    assert line.startswith(f"run.ray_address: no Ray can be reached at {wanted}: ")


def test_a_ray_that_may_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that listens on the loopback interface only, as those of this project, by its address or by auto."""
    alive = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    calls = {"NodeInfoGcsService": "CheckAlive", "RayletDriver": "ClusterInfo"}  # as Ray's own processes answer
    with serving_grpc({f"ray.rpc.{service}": {call: alive} for service, call in calls.items()}) as address:
        assert find_wrong(f"run.ray_address={address}") == []
        assert find_wrong(f"run.ray_address=ray://{address}") == []
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert find_wrong("run.ray_address=auto") == []
    (line,) = find_wrong("run.ray_address=auto")
    assert f"no Ray can be reached at auto, which is {address} by RAY_ADDRESS: " in line
    assert find_wrong("run.ray_address=127.0.0.1:1", verb="sample") == []  # it starts none


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_another_program_at_the_address_of_a_ray(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would try for minutes, and write lines of its own."""
    monkeypatch.setattr("drpo_rewards.cluster.probe.ANSWER_S", 0.5)
    with serving_grpc({}) as address:
        (line,) = find_wrong(f"run.ray_address={scheme}{address}")
        assert f"no Ray can be reached at {scheme}{address}: another program listens there" in line
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        (line,) = find_wrong(f"run.ray_address={scheme}{address}")
        assert "what listens there has not answered within 0.5 s" in line


@contextmanager
def serving_grpc(services: Mapping[str, Mapping[str, grpc.RpcMethodHandler]]) -> Iterator[str]:
    """A gRPC server with these services, for the duration of the block. Yields its address."""
    server = grpc.server(ThreadPoolExecutor(2))
    for name, methods in services.items():
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)
