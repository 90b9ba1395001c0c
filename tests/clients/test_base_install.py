"""The base install beside the packages that other trainers pin: it works with the oldest and the newest of each."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from clients.environments import Task, find_python, make_environment, run_command, run_python
from support import ROOT
from support.service import Served

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]  # pip may take minutes

OLDEST = (
    "grpcio==1.62.3",
    "httpx==0.27.0",
    "numpy==1.26.4",
    "pillow==10.4.0",
    "protobuf==4.25.8",
    "pydantic==2.10.6",
    "pyyaml==6.0.1",
    "rich==13.8.1",
    "tenacity==8.5.0",
    "typer==0.29.0",
)
# The pins of flow_grpo that concern the client, and what brings its protobuf.
FLOW_GRPO = (
    "numpy==1.26.4", "pillow==10.4.0", "pydantic==2.10.6", "wandb==0.18.7", "requests==2.32.3", "aiohttp==3.11.13",
    "fastapi==0.115.11",
)  # fmt: skip
ENVIRONMENTS = {"oldest": ("3.10", OLDEST), "flow_grpo": ("3.10", FLOW_GRPO), "newest": ("", ())}

PROGRAM = """
import asyncio, base64, json, sys
import numpy as np
from drpo_rewards import AsyncRankingClient, Group, RankingClient

task = json.loads(sys.stdin.read())
files = [base64.b64decode(uri.partition(",")[2]) for uri in task["documents"]]
tensor = np.linspace(0, 1, 70 * 3 * 8 * 8, dtype=np.float32).reshape(70, 3, 8, 8)
prompts = [f"{number} red circles" for number in ("two", "three")] * 35


async def score(address):
    async with AsyncRankingClient(address) as client:
        return await client.score_batch(tensor, prompts)


for address in sys.argv[1:]:
    with RankingClient(address) as client:
        assert client.ready() and [model.name for model in client.models()] == ["geneval", "default"]
        assert client.rank(task["query"], files).order == [1, 2, 0]
        assert client.rerank(task["query"], files, top_n=1).results[0].index == 1
        assert client.compare(task["query"], *files[:2]).winner == "second"
        assert client.score([Group(task["query"], files)]).groups[0].rewards["geneval"].scores[1] == 1
        batch = client.submit_score_batch(tensor, prompts).result()["geneval"]
        assert batch.shape == (70,) and np.array_equal(batch, asyncio.run(score(address))["geneval"])
assert not {"torch", "ray"} & set(sys.modules)
print("DONE")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the project's source, because building a wheel writes beside it."""
    folder = tmp_path_factory.getbasetemp() / "project"
    if not folder.exists():
        hidden = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        for name in ("services", "trainer"):
            shutil.copytree(ROOT / name, folder / name, ignore=hidden)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, folder / name)
    return str(folder)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_client_works_beside_others_packages(name: str, project: str, served: Served, task: Task) -> None:
    version, packages = ENVIRONMENTS[name]
    python = make_environment(f"base-{name}", [project, *packages], find_python(version) if version else sys.executable)
    assert run_python(python, PROGRAM, served.http_url, served.grpc_url, stdin=task.as_json()).endswith("DONE\n")
    command = [str(Path(python).parent / "drpo-rewards"), "models", "--json", "--url", served.http_url]
    assert [model["name"] for model in json.loads(run_command(command))] == ["geneval", "default"]
