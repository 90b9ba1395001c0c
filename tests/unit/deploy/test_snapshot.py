"""What the picture of the dashboard says where there is no Prometheus. With one it is drawn in tests/cluster."""

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
def somebody_else() -> Iterator[str]:
    """A web server that is no Prometheus."""
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def refused(tmp_path: Path, address: str) -> str:
    picture = tmp_path / "dashboard.png"
    command = [sys.executable, str(SNAPSHOT), str(picture), "--prometheus", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr, picture.exists()) == (1, "", False)
    return done.stdout


def test_nobody_or_another_answers(tmp_path: Path, somebody_else: str) -> None:
    for address in (f"http://127.0.0.1:{free_port()}", "nonsense", somebody_else):
        said = refused(tmp_path, address)
        assert said.startswith(f"Prometheus does not answer at {address}: ")
        assert said.endswith("Start it, or name it with --prometheus.\n")
