"""`drpo-rewards serve` as it starts and ends: one service on a port, odd surroundings, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.service import Served

from drpo_rewards import RankingClient
from drpo_rewards.serving.ports import reserve_port

pytestmark = pytest.mark.integration

REWARD = """
from drpo_rewards.rewards.base import Score

class Mean:
    def __init__(self, version):
        self.version = version

    def score(self, items):
        return [Score(float(item.image.mean())) for item in items]
"""
MY_CONFIG = "\ufeffrewards: {mean: {type: 'mean:Mean', options: {version: größe-1}, num_cpus: 0.1}}"
PROXIES = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy", "ALL_PROXY"]
ODD = dict.fromkeys(PROXIES, "http://127.0.0.1:9") | {
    "HOME": "/proc/no-home",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


@contextmanager
def start(
    folder: Path, *arguments: str, environment: Mapping[str, str] = os.environ
) -> Iterator[subprocess.Popen[str]]:
    """Starts `serve`, and kills it if the test has not ended it."""
    command = [sys.executable, "-m", "drpo_rewards", "serve", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def family_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_nothing_is_left(family: list[psutil.Process]) -> None:
    deadline = time.monotonic() + 60
    while living := [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"still running: {living}"
        time.sleep(0.2)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_second_service_ends_before_ray_starts(served: Served, protocol: str) -> None:
    port = (served.http_url if protocol == "http" else served.grpc_url).rpartition(":")[2]
    ports = ["--port", port, "--grpc-port", "0"] if protocol == "http" else ["--port", "0", "--grpc-port", port]
    with start(served.folder, "shapes", *ports) as second:
        output, log = second.communicate(timeout=100)
    assert second.returncode == 2
    assert output == ""
    (wrong,) = [line for line in log.splitlines() if line.startswith("wrong")]
    assert f"127.0.0.1:{port} is taken by a ranking service (process {served.process.pid}: " in wrong
    assert f"--{'port' if protocol == 'http' else 'grpc-port'} PORT" in wrong
    assert "starting Ray" not in log


def test_the_logs_are_where_the_start_says(served: Served) -> None:
    log = (served.folder / "log").read_text()
    folder = Path(log.partition("logs: ")[2].splitlines()[0])
    assert list((folder / "serve").glob("*geneval*.log"))


def test_no_process_reads_logs_that_nobody_sees(served: Served) -> None:
    commands = [" ".join(one.cmdline()) for one in family_of(served.process)]
    assert any("raylet" in command for command in commands)
    assert not [command for command in commands if "log_monitor" in command]


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_service_in_odd_surroundings_serves_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "ein größerer Ordner mit Leerzeichen"
    folder.mkdir()
    (folder / "mean.py").write_text(REWARD)
    (folder / "my.yaml").write_text(MY_CONFIG, encoding="utf-8")
    environment = os.environ | ODD | {"TMPDIR": str(folder)}
    with start(folder, "my.yaml", "--port", "0", "--grpc-port", "0", environment=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline().split()
        assert ready[:1] == ["ready"], process.stderr.read()
        for url in ready[1:3]:
            with RankingClient(url) as client:
                assert [model.version for model in client.models() if model.kind == "reward"] == ["größe-1"]
                assert client.ready()
        family = family_of(process)
        process.send_signal(number)
        assert process.wait(100) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        assert_nothing_is_left(family)
    for url in ready[1:3]:
        reserve_port("127.0.0.1", int(url.rpartition(":")[2])).close()


@pytest.mark.thorough
def test_a_start_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    with start(tmp_path, "shapes", "--port", "0", "--grpc-port", "0") as process:
        assert process.stderr is not None
        assert any(line.startswith("logs: ") for line in iter(process.stderr.readline, ""))
        family = family_of(process)
        process.send_signal(signal.SIGTERM)
        os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does
        assert process.wait(100) == 128 + signal.SIGTERM
        assert "Traceback" not in process.stderr.read()
        assert_nothing_is_left(family)


@pytest.mark.thorough
def test_a_machine_that_is_too_slow_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("rewards: {g: {type: geneval}}\ndeploy_timeout_s: 0.01")
    with start(tmp_path, "my.yaml", "--port", "0", "--grpc-port", "0") as process:
        log = process.communicate(timeout=100)[1]
    assert process.returncode == 1
    (error,) = [line for line in log.splitlines() if line.startswith("error")]
    assert re.search(r"was not up after 0\.01 s; (end other programs|raise deploy_timeout_s)", error)
    assert "Traceback" not in log
