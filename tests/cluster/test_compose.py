"""The compose cluster, started for real: access from outside, training, and recovery from killed parts.

The tests share one cluster and depend on their order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from support.compose import NODES, ROOT, RUNS, Cluster, mean, wait_for

from drpo_rewards import RankingClient, errors

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
SPEC = {"include": [{"class": "circle", "color": "red"}]}
RUN = "survivor"
STEPS = 60
TRAIN = (
    "--preset", "shapes", "--run.name", RUN, "--training.steps", str(STEPS), "--training.max_seconds", "null",
    "--training.checkpoint_every", "10", "--optimizer.lr", "3e-3", "--evaluation.prompts_per_task", "4",
)  # fmt: skip

Clock = Callable[[str], Any]


def rank(address: str, key: str | None, **options: Any) -> Any:
    with RankingClient(address, api_key=key, **options) as client:
        return client.rank("a red circle", PICTURES, metadata=SPEC)


def test_nothing_but_loopback_is_published_and_no_secret_is_printed(cluster: Cluster) -> None:
    shown = cluster.compose("config")
    assert cluster.token not in shown
    assert cluster.key not in shown
    published = [ports for container in cluster.containers() for ports in container.ports.values() if ports]
    assert len(published) >= 3
    assert {binding["HostIp"] for bindings in published for binding in bindings} == {"127.0.0.1"}


def test_the_gpu_overlay_gives_each_kind_of_worker_its_own_gpu(cluster: Cluster) -> None:
    files = ("--file", "docker-compose.yml", "--file", "docker-compose.gpu.yml")
    services = json.loads(cluster.compose(*files, "config", "--format", "json"))["services"]
    gpus = {
        name: [device["device_ids"] for device in service["deploy"]["resources"]["reservations"]["devices"]]
        for name, service in services.items()
        if "deploy" in service
    }
    assert gpus == {"rewards": [["0"]], "trainer": [["1"]]}
    assert services["head"]["environment"]["DRPO_SERVE_CONFIG"] == "/etc/drpo/serve-gpu.yaml"


def test_nodes_do_not_run_as_root_and_have_no_compiler(cluster: Cluster) -> None:
    for service in NODES:
        (container,) = cluster.containers(service)
        assert container.exec_run(["id", "-u"]).output.decode().strip() == "10001"
        assert container.exec_run(["sh", "-c", "command -v gcc cc c++"]).exit_code != 0


def test_it_ranks_over_http_and_grpc(cluster: Cluster) -> None:
    over_http, over_grpc = (rank(address, cluster.key) for address in (cluster.http_url, cluster.grpc_address))
    assert over_http.order == over_grpc.order
    assert over_http.rewards["geneval"].scores == over_grpc.rewards["geneval"].scores


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_wrong_key_is_refused(cluster: Cluster, key: str | None) -> None:
    for address in (cluster.http_url, cluster.grpc_address):
        with pytest.raises(errors.AuthenticationError):
            rank(address, key)


def test_a_wrong_token_is_refused(cluster: Cluster) -> None:
    def status(path: str, **headers: str) -> int:
        return httpx.get(cluster.dashboard + path, headers=headers).status_code

    for path in ("/api/jobs/", "/nodes?view=summary", "/api/serve/applications/", "/api/prometheus/sd"):
        assert status(path) == 401
        assert status(path, authorization=f"Bearer {'0' * 64}") == 403
        assert status(path, authorization=f"Bearer {cluster.token}") == 200


def test_a_run_outlives_a_reward_worker_and_can_be_stopped(cluster: Cluster, tmp_path: Path, clock: Clock) -> None:
    with clock("from `ray job submit` to step 5"):
        job = cluster.submit(tmp_path / "log", *TRAIN)
        job.wait_for_step(RUN, 5)
    at_kill, restarts = cluster.metrics(RUN)[-1]["step"], cluster.restarts("rewards")
    cluster.sigkill("rewards")
    with clock("a reward worker killed in mid-run, until the run has done 4 more steps"):
        reached = job.wait_for_step(RUN, at_kill + 4)[-1]["step"]
    assert cluster.restarts("rewards") > restarts
    with clock("`ray job stop`, until the run's checkpoint is written"):
        job.stop()
        job.wait()
    assert f"drpo train --resume {RUNS}/{RUN}" in job.output
    last = cluster.metrics(RUN)[-1]["step"]
    assert reached <= last < STEPS
    assert cluster.exists(f"{RUNS}/{RUN}/checkpoints/step-{last:06d}/state.pt")


def test_the_same_command_resumes_and_outlives_a_trainer(cluster: Cluster, tmp_path: Path, clock: Clock) -> None:
    before = cluster.metrics(RUN)
    job = cluster.submit(tmp_path / "log", *TRAIN, "--resume", RUN)
    job.wait_for_step(RUN, before[-1]["step"] + 3)
    restarts = cluster.restarts("trainer")
    cluster.sigkill("trainer")
    with clock("a trainer worker killed in mid-run, until it has done 2 more steps"):
        job.wait_for_step(RUN, cluster.metrics(RUN)[-1]["step"] + 2)
    assert job.wait() == 0, job.output
    assert cluster.restarts("trainer") > restarts

    metrics = cluster.metrics(RUN)
    assert metrics[: len(before)] == before
    assert [line["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert sum(line["groups_dropped"] for line in metrics) == 0
    rewards = [line["reward/geneval"] for line in metrics]
    assert mean(rewards[-20:]) > mean(rewards[:20])
    assert len([line for line in job.output.splitlines() if line.startswith("training ")]) < STEPS

    cluster.compose("cp", f"head:{RUNS}/{RUN}", str(tmp_path))
    fetched = {path.name for path in (tmp_path / RUN).iterdir()}
    assert {"report.html", "summary.json", "metrics.jsonl", "config.yaml"} <= fetched
    assert any((tmp_path / RUN / "adapter").glob("*.safetensors"))


def test_a_failed_run_fails_its_command(cluster: Cluster) -> None:
    """Started by a script of deploy/jobs, as a user would."""
    here = str(Path(sys.executable).parent)
    environment = {
        **os.environ, "PATH": f"{here}:{os.environ['PATH']}", "DRPO_CLUSTER": cluster.dashboard,
        "RAY_AUTH_TOKEN": cluster.token,
    }  # fmt: skip
    command = ["deploy/jobs/shapes.sh", "--training.stepz", "5"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "there is no setting training.stepz; did you mean training.steps?" in done.stdout


def test_a_trainer_elsewhere_ranks_over_grpc_with_the_key(cluster: Cluster, tmp_path: Path) -> None:
    """A trainer on another machine has its own Ray, and knows only the cluster's address and key."""
    command = [
        sys.executable, "-m", "drpo", "train", "--preset", "shapes", "--run.name", "elsewhere",
        "--run.folder", str(tmp_path), "--rewards.address", cluster.grpc_address,
        "--rewards.api_key_env", "CLUSTER_KEY", "--training.steps", "2", "--training.num_workers", "1",
        "--training.groups_per_step", "1", "--evaluation.enabled", "false",
    ]  # fmt: skip
    environment = {**os.environ, "CLUSTER_KEY": cluster.key}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any((tmp_path / "elsewhere" / "adapter").glob("*.safetensors"))


def test_a_killed_head_recovers(cluster: Cluster, clock: Clock) -> None:
    def ranks() -> bool:
        try:
            return bool(rank(cluster.http_url, key, retries=0, timeout_s=20).order)
        except errors.RewardsError:
            return False

    key, token, restarts = cluster.key, cluster.token, cluster.restarts("head")
    cluster.sigkill("head")
    wait_for(lambda: cluster.restarts("head") > restarts, 60, cluster.logs)
    with clock("the head killed while idle, until the service ranks again"):
        wait_for(ranks, 240, cluster.logs)
    assert (cluster.key, cluster.token) == (key, token)
    assert cluster.metrics(RUN)[-1]["step"] == STEPS
