"""The queries of the Grafana dashboard, sent to the Prometheus that has monitored the previous tests."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from support.compose import ROOT, Cluster, wait_for

pytestmark = pytest.mark.cluster

DASHBOARD = json.loads((ROOT / "deploy/observe/grafana/dashboards/drpo.json").read_text())
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}: {target['legendFormat']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster) -> httpx.Client:
    """A client of Prometheus, which has scraped a refused call twice, so that errors have a series and a rate."""
    if not cluster.containers("prometheus"):
        pytest.skip("there is no image of Prometheus; deploy/ci/engine.sh makes one from Debian's package")
    client = httpx.Client(base_url=f"http://127.0.0.1:{cluster.ports['PROMETHEUS']}/api/v1")
    refused = httpx.post(f"{cluster.http_url}/v1/rank", json={}, headers={"authorization": "Bearer wrong"})
    assert refused.status_code == 401
    twice = "count_over_time(drpo_rewards_errors_total[1m]) >= 2"
    wait_for(lambda: query_prometheus(client, "/query", query=twice)["result"], 60, cluster.logs)
    return client


def query_prometheus(prometheus: httpx.Client, path: str, **parameters: Any) -> Any:
    answer = prometheus.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_every_node_and_the_service_are_discovered(cluster: Cluster, prometheus: httpx.Client) -> None:
    """The head was killed just before; nodes return to its list one by one, and Prometheus reads it every 15 s."""

    def all_up() -> bool:
        targets = query_prometheus(prometheus, "/targets", state="active")["activeTargets"]
        up = {(target["labels"]["job"], target["scrapeUrl"]) for target in targets if target["health"] == "up"}
        jobs = [job for job, _ in up]
        return jobs.count("ray") >= 3 and "rewards" in jobs

    wait_for(all_up, 120, cluster.logs)


@pytest.mark.parametrize("query", QUERIES)
def test_a_panel_has_its_series(prometheus: httpx.Client, query: str) -> None:
    now = time.time()
    found = query_prometheus(prometheus, "/query_range", query=query, start=now - 1800, end=now, step=5)["result"]
    values = [float(value) for series in found for _, value in series["values"]]
    assert any(math.isfinite(value) for value in values), query


def test_the_dashboard_is_drawn_to_a_file(cluster: Cluster, prometheus: httpx.Client, tmp_path: Path) -> None:
    def snapshot(picture: Path) -> subprocess.CompletedProcess[str]:
        address = f"http://127.0.0.1:{cluster.ports['PROMETHEUS']}"
        options = ["--prometheus", address, "--minutes", "10"]
        command = [sys.executable, "deploy/observe/snapshot.py", str(picture), *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    picture = tmp_path / "dashboard.png"
    done = snapshot(picture)
    assert (done.returncode, done.stdout) == (0, f"{picture}: {len(DASHBOARD['panels'])} panels\n"), done.stderr
    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50  # the lines of the panels have their own colours

    for unwritable in (tmp_path / "nowhere/dashboard.png", tmp_path / "dashboard.docx"):
        done = snapshot(unwritable)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith(f"{unwritable} cannot be written: ")
