"""Ranking services that tests start, in this process or by `drpo-rewards serve`."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from drpo_rewards import RankResponse, serving
from support import ROOT
from support.processes import children

TRANSPORTS = ["serve", "http", "grpc"]
PICTURES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
REDS = PICTURES.astype(float).mean(axis=(1, 2)) @ [1, -0.5, -0.5]

CONFIG = {
    "rewards": {
        "redness": {"type": "support.rewards:TracedRedness", "batch_size": 32, "batch_wait_s": 0.02},
        "darkness": {"type": "support.rewards:Darkness"},
        "corner": {"type": "support.rewards:Corner"},
        "judge": {"type": "support.rewards:BrighterOf", "batch_size": 4},
        "failing": {"type": "support.rewards:Failing", "deadline_s": 200},
        "hanging": {"type": "support.rewards:Failing", "deadline_s": 4},
        "busy": {
            "type": "support.rewards:TracedRedness",
            "options": {"delay_s": 0.4},
            "max_ongoing": 1,
            "max_queued": 1,
        },
    },
    "mixtures": {"default": {"rewards": {"redness": 1.0}}, "both": {"rewards": {"redness": 3.0, "darkness": 1.0}}},
}
KEY = "a-key-of-the-tests"

README = ROOT / "services" / "README.md"

MORE_REWARDS = """\
  geneval: {type: geneval, num_cpus: 0.1}
  darkness: {type: "support.rewards:Darkness", num_cpus: 0.1, own_app: true}
mixtures:
  default: {rewards: {geneval: 1.0}}
  both: {rewards: {geneval: 0.7, sharpness: 0.3}}
"""


def config(**changes: Any) -> serving.ServiceConfig:
    settings = serving.ServiceConfig.model_validate(CONFIG | changes)
    for reward in settings.rewards.values():
        reward.num_cpus = 0.1
    return settings


def address(service: serving.RunningService, transport: str) -> str:
    found = {"serve": service.handle_address, "http": service.http_url, "grpc": service.grpc_address}[transport]
    assert found is not None
    return found


def replica_pid(name: str, application: str = "ranking") -> int:
    """The process id of a deployment's only replica.

    Raises:
        IndexError: the deployment has no replica at the moment.
    """
    return replica_pids(name, application)[0]


def replica_pids(name: str, application: str = "ranking") -> list[int]:
    """The process ids of a deployment's replicas, which this process's Ray has started."""
    return [process.pid for process in children(rf"^ray::ServeReplica:{application}:{re.escape(name)}(\.|\s|$)")]


def timeless(response: RankResponse) -> RankResponse:
    return response.model_copy(update={"timings_ms": {}})


@dataclass(frozen=True)
class Served:
    """A running service: its folder, process and addresses."""

    folder: Path
    process: subprocess.Popen[str]
    http_url: str
    grpc_url: str


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """Starts the config and the reward that services/README.md shows, with two more rewards."""
    (folder / "sharpness.py").write_text(example("# sharpness.py"))
    (folder / "my.yaml").write_text(example("# my.yaml") + MORE_REWARDS)
    with serve_config(folder, folder / "my.yaml") as running:
        yield running


@contextmanager
def serve_config(
    folder: Path, config: Path, environment: Mapping[str, str] = os.environ, cwd: Path | None = None
) -> Iterator[Served]:
    """Starts a service of a config on free ports, with its log in `folder`. Ends it with Ctrl-C."""
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "drpo_rewards", "serve", str(config)]
        process = subprocess.Popen(
            [*command, "--port", "0", "--grpc-port", "0"],
            stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True, env=environment, cwd=cwd,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[:1] == ["ready"], (folder / "log").read_text()
        yield Served(folder, process, ready[1], ready[2])
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, (folder / "log").read_text()
        process.stdout.close()


def example(containing: str) -> str:
    """The only code block of services/README.md that contains a text."""
    found = [
        block for block in re.findall(r"^```\w+\n(.*?)^```$", README.read_text(), re.M | re.S) if containing in block
    ]
    assert len(found) == 1, f"{len(found)} examples of {README} contain {containing!r}"
    return found[0]


def reachable_from_elsewhere(pid: int) -> list[str]:
    """Addresses outside the loopback interface at which a process and its children listen."""
    process = psutil.Process(pid)
    family = {one.pid: one for one in [process, *process.children(recursive=True)]}
    listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.pid in family]
    assert listening, f"neither process {pid} nor its children listen"
    return [
        f"{family[one.pid].name()}: {one.laddr.ip}:{one.laddr.port}"
        for one in listening
        if not is_loopback(ipaddress.ip_address(one.laddr.ip))
    ]


def is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
