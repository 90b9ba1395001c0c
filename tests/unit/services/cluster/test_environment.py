"""What Ray's processes inherit: calls within this machine never go through a proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PRINT = (
    "import json, os; from drpo_rewards.cluster.environment import set_ray_environment as s; s(); s(); "
    "print(json.dumps({name: os.environ.get(name) for name in ('no_proxy', 'NO_PROXY', 'no_grpc_proxy')}))"
)
LOCAL = "127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"no_proxy": None, "NO_PROXY": None, "no_grpc_proxy": None}),
        ({"HTTPS_PROXY": "http://proxy:3128"}, dict.fromkeys(["no_proxy", "NO_PROXY", "no_grpc_proxy"], LOCAL)),
        (
            {"http_proxy": "http://proxy:3128", "NO_PROXY": ".corp, 10.0.0.1", "no_grpc_proxy": "grpc.corp"},
            {
                "no_proxy": f".corp,10.0.0.1,{LOCAL}",
                "NO_PROXY": f".corp,10.0.0.1,{LOCAL}",
                "no_grpc_proxy": f"grpc.corp,.corp,10.0.0.1,{LOCAL}",
            },
        ),
    ],
)
def test_this_machine_is_left_out_of_proxies(given: dict[str, str], expected: dict[str, str | None]) -> None:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | given
    answer = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, timeout=60)
    assert json.loads(answer.stdout) == expected, answer.stderr
