"""The messages of deploy/observe/snapshot.py without Prometheus. tests/cluster runs it with Prometheus."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from support import ROOT

from drpo_rewards.serving.listeners import free_port

SNAPSHOT = ROOT / "deploy/observe/snapshot.py"


@pytest.fixture
def other_server() -> Iterator[str]:
    """The URL of a web server that is not Prometheus."""
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run_and_fail(tmp_path: Path, address: str) -> str:
    picture = tmp_path / "dashboard.png"
    command = [sys.executable, str(SNAPSHOT), str(picture), "--prometheus", address]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (completed.returncode, completed.stderr, picture.exists()) == (1, "", False)
    return completed.stdout


def test_prometheus_does_not_answer(tmp_path: Path, other_server: str) -> None:
    for address in (f"http://127.0.0.1:{free_port()}", "nonsense", other_server):
        output = run_and_fail(tmp_path, address)
        assert output.startswith(f"Prometheus does not answer at {address}: ")
        assert output.endswith("Start it, or set its address with --prometheus.\n")
