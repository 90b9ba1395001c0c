"""The service of `deploy/serve/cpu-tiny.yaml`: every reward, with a tiny checkpoint, ranks over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ROOT
from support.images import picture
from support.service import Served, serve_config
from support.tiny.all_rewards import write_all

from drpo_rewards import RankingClient, rewards
from drpo_rewards.rewards.base import Reward, ScoreItem
from drpo_rewards.serving.config import ServiceConfig

pytestmark = [pytest.mark.integration, pytest.mark.thorough, pytest.mark.timeout(900)]

CONFIG = ROOT / "deploy" / "serve" / "cpu-tiny.yaml"
PROMPT = "two cats, left of a red circle"
SPEC: dict[str, Any] = {"include": [{"class": "cat", "count": 2}, {"class": "dog", "count": 1, "color": "red"}]}
METADATA: dict[str, dict[str, Any]] = {  # of the rewards that do not read GenEval's
    "ocr": {"text": "OPEN"},
    "soft_tifa": {"vqa": [["How many cats are in the image?", "two"], ["Is there a circle?", "Yes"]]},
}
PICTURES = [picture(60, 40, seed=1), picture(33, 71, seed=2), picture(48, 48, "L", seed=3), picture(20, 20, seed=4)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder that the config's relative paths start from."""
    folder = tmp_path_factory.mktemp("tiny")
    write_all(folder / "tiny-weights")
    return folder


@pytest.fixture(scope="module")
def service(tiny: Path) -> Iterator[Served]:
    with serve_config(tiny, CONFIG, {**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=tiny) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Served) -> Iterator[RankingClient]:
    with RankingClient(service.http_url, timeout_s=200) as opened:
        yield opened


@pytest.fixture(scope="module")
def in_process(tiny: Path) -> dict[str, list[float]]:
    """Compute each reward's scores of the pictures in this process, one picture at a time."""
    came_from = Path.cwd()
    os.chdir(tiny)
    try:
        built = {
            name: rewards.create(reward.type, reward.options)
            for name, reward in ServiceConfig.load(CONFIG).rewards.items()
        }
    finally:
        os.chdir(came_from)
    return {
        name: [reward.score([ScoreItem(image, PROMPT, METADATA.get(name, SPEC))])[0].value for image in PICTURES]
        for name, reward in built.items()
        if isinstance(reward, Reward)
    }


def test_every_reward_is_up_and_ready(client: RankingClient, service: Served) -> None:
    settings = ServiceConfig.load(CONFIG)
    infos = {info.name: info for info in client.models()}
    assert infos.keys() == settings.rewards.keys() | settings.mixtures.keys()
    assert all(info.state == "ready" for info in infos.values())
    readiness = client.readiness()
    assert readiness.ready, readiness
    log = (service.folder / "log").read_text()
    assert all(f"reward-{name} is up" in log for name in settings.rewards)


def test_each_reward_ranks_with_its_own_scores(client: RankingClient, in_process: dict[str, list[float]]) -> None:
    for name, expected in in_process.items():
        ranking = client.rank(PROMPT, PICTURES, rewards={name: 1.0}, metadata=METADATA.get(name, SPEC))
        assert ranking.rewards[name].scores == pytest.approx(expected, rel=1e-4, abs=1e-5), name
        best_first = sorted(range(len(PICTURES)), key=lambda index: -ranking.rewards[name].scores[index])
        assert ranking.order == best_first or len(set(expected)) < len(expected)


def test_one_request_has_the_metadata_of_several_rewards(
    client: RankingClient, in_process: dict[str, list[float]]
) -> None:
    metadata = SPEC | METADATA["ocr"] | METADATA["soft_tifa"]
    names = ("geneval", "ocr", "soft_tifa", "jpeg_size")
    ranking = client.rank(PROMPT, PICTURES, rewards=dict.fromkeys(names, 1.0), metadata=metadata)
    for name in names:
        assert ranking.rewards[name].scores == pytest.approx(in_process[name], rel=1e-4, abs=1e-5), name


def test_each_mixture_adds_z_scores(client: RankingClient, in_process: dict[str, list[float]]) -> None:
    for name, mixture in ServiceConfig.load(CONFIG).mixtures.items():
        combined = np.zeros(len(PICTURES))
        for reward, weight in mixture.rewards.items():
            scores = np.array(in_process[reward])
            combined += weight / sum(mixture.rewards.values()) * (scores - scores.mean()) / scores.std()
        ranking = client.rank(PROMPT, PICTURES, mixture=name, metadata=SPEC)
        assert ranking.combined == pytest.approx(combined.tolist(), rel=1e-3, abs=1e-3), name
        assert ranking.order == np.argsort(-combined).tolist()


def test_offline_the_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("rewards: {hpsv2: {type: hpsv2, num_cpus: 0.1, options: {version: '2.0'}}}")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "drpo_rewards", "serve", "my.yaml", "--port", "0", "--grpc-port", "0"]
    answer = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert answer.returncode == 2
    assert "HPS_v2_compressed.pt of xswu/HPSv2 is not in the hub's cache" in answer.stderr
    assert "drpo-rewards download hpsv2 --option version=2.0" in answer.stderr
    assert "Traceback" not in answer.stderr
