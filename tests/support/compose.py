"""A cluster of docker-compose.yml with its own project name and ports. Tests control it as a user does."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from drpo_rewards.serving.listeners import free_port
from support import ROOT

SECRETS = "/var/lib/drpo/secrets"
RUNS = "/var/lib/drpo/runs"
PORTS = ("DASHBOARD", "HTTP", "GRPC", "PROMETHEUS", "GRAFANA")
NODES = ("head", "rewards", "trainer")
RAY = str(Path(sys.executable).with_name("ray"))


class Cluster:
    """A compose cluster, which runs between `up` and `down`.

    Containers are looked up for each call, because tests restart them.
    """

    def __init__(self, image: str) -> None:
        self.engine = docker.from_env()
        self.project = f"drpo-test-{uuid.uuid4().hex[:8]}"
        self.ports = {name: free_port() for name in PORTS}
        ports = {f"DRPO_{name}_PORT": str(port) for name, port in self.ports.items()}
        self.environment = {**os.environ, **ports, "DRPO_IMAGE": image}

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['HTTP']}"

    @property
    def grpc_address(self) -> str:
        return f"grpc://127.0.0.1:{self.ports['GRPC']}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.ports['DASHBOARD']}"

    @property
    def token(self) -> str:
        return self.read(f"{SECRETS}/ray-token")

    @property
    def key(self) -> str:
        return self.read(f"{SECRETS}/api-key")

    def up(self) -> None:
        """Starts all nodes, and Prometheus and Grafana if their images are there."""
        images = json.loads(self.compose("--profile", "observe", "config", "--format", "json"))["services"]
        monitoring = [name for name in ("prometheus", "grafana") if self._has_image(images[name]["image"])]
        self.compose("up", "--detach", "--wait", "--no-build", *NODES, *monitoring)

    def down(self) -> None:
        self.compose("--profile", "observe", "down", "--volumes", "--timeout", "5")

    def compose(self, *arguments: str) -> str:
        """Returns the output of a `docker compose` command. Its output is in the error if it fails."""
        command = ["docker", "compose", "--project-name", self.project, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """The last 15 lines of every container's log, for error messages."""
        logs = ((one.name, one.logs(tail=15).decode(errors="replace")) for one in self.containers())
        return "\n".join(f"--- {name}\n{text}" for name, text in logs)

    def containers(self, service: str | None = None) -> list[Container]:
        labels = [f"com.docker.compose.project={self.project}"]
        if service is not None:
            labels.append(f"com.docker.compose.service={service}")
        return self.engine.containers.list(all=True, filters={"label": labels})

    def read(self, path: str) -> str:
        """The text of a file on the head node, or an empty string if there is none."""
        try:
            stream, _ = self.containers("head")[0].get_archive(path)
        except docker.errors.NotFound:
            return ""
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            (member,) = archive.getmembers()
            content = archive.extractfile(member)
            assert content is not None, f"{path} is not a file"
            return content.read().decode().strip()

    def exists(self, path: str) -> bool:
        return self.containers("head")[0].exec_run(["test", "-s", path]).exit_code == 0

    def sigkill(self, service: str) -> None:
        """Sends SIGKILL to the first process of a service's container, from outside it.

        Docker sees a crash and starts the container again. After `docker kill` it would not.
        """
        (container,) = self.containers(service)
        container.reload()
        os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)

    def restarts(self, service: str) -> int:
        (container,) = self.containers(service)
        container.reload()
        return container.attrs["RestartCount"]

    def metrics(self, run: str) -> list[dict[str, Any]]:
        """The metrics of a run so far, one entry per step."""
        lines = self.read(f"{RUNS}/{run}/metrics.jsonl").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a `ray` command outside the cluster, with its token."""
        return subprocess.run(
            [RAY, *arguments, "--address", self.dashboard],
            cwd=ROOT, env=self._ray_environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def submit(self, log: Path, *arguments: str) -> Job:
        """Starts a training run with `ray job submit`, which writes its output to `log`."""
        name = f"job-{uuid.uuid4().hex[:8]}"
        command = [RAY, "job", "submit", "--address", self.dashboard, "--submission-id", name, "--working-dir", "."]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, "--", "python", "-m", "drpo", "train", *arguments],
                cwd=ROOT, env=self._ray_environment(), stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return Job(self, name, process, log)

    def _has_image(self, name: str) -> bool:
        return bool(self.engine.images.list(name))

    def _ray_environment(self) -> dict[str, str]:
        return {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


class Job:
    """A submitted training run, and the command that follows its log."""

    def __init__(self, cluster: Cluster, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.process = process
        self.log = log

    @property
    def output(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text())

    def wait_for_step(self, run: str, step: int) -> list[dict[str, Any]]:
        """Waits until a run has done a step, and returns its metrics."""

        def reached() -> list[dict[str, Any]] | None:
            assert self.process.poll() is None, self.output
            metrics = self.cluster.metrics(run)
            return metrics if metrics and metrics[-1]["step"] >= step else None

        return wait_for(reached, 240, lambda: self.output + self.cluster.logs())

    def stop(self) -> None:
        stopped = self.cluster.ray("job", "stop", self.name)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr

    def wait(self) -> int:
        return self.process.wait(400)


def wait_for(look: Callable[[], Any], seconds: float, explain: Callable[[], str], *, every: float = 1.0) -> Any:
    """Calls `look` until it returns something true, and returns that. Fails with `explain()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, explain()
        time.sleep(every)
    return found


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
