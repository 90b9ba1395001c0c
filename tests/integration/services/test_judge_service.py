"""The judge in the service and behind `transformers serve`, with a tiny Qwen3-VL: all give the same verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from support.chat_server import Reply, brighter, chat_server
from support.images import picture
from support.service import address
from support.tiny.judge import PROMPT, write_judge
from support.transformers_serve import running

from drpo_rewards import RankingClient, errors, rewards, serving
from drpo_rewards.client import Group
from drpo_rewards.ranking.tournament import Tournament, seeding
from drpo_rewards.rewards.base import Comparison, PairItem
from drpo_rewards.rewards.judge.reward import Judge
from drpo_rewards.serving.listeners import free_port

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

PICTURES = [picture(64, 64, seed=seed) for seed in range(8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def judge(model: Path) -> Judge:
    loaded = rewards.load("judge", model=str(model), device="cpu")
    assert isinstance(loaded, Judge)
    return loaded


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("witnessed")


@pytest.fixture(scope="module")
def service(ray_cluster: None, model: Path, witnessed: Path) -> Iterator[serving.RunningService]:
    def reply(body: dict[str, object]) -> Reply:
        return Reply("no such key", 401) if "locked" in str(body["messages"])[-4000:] else brighter(body)

    recording = "support.rewards:RecordingJudge"
    with chat_server(reply) as server:
        endpoint = {"backend": "endpoint", "model": "qwen", "base_url": server.url}
        configs = {
            "judge": {"type": "judge", "options": {"model": str(model), "device": "cpu"}, "batch_size": 4},
            "remote": {"type": "judge", "options": endpoint},
            "two": {"type": recording, "options": {"folder": str(witnessed)}, "num_replicas": 2, "batch_size": 2},
            "slow": {"type": recording, "options": {"folder": str(witnessed), "delay_s": 0.5}, "deadline_s": 1.2},
        }
        settings = serving.ServiceConfig.model_validate({"rewards": configs})
        for reward in settings.rewards.values():
            reward.num_cpus = 0.1
        with serving.start(settings, app_name="judges", http_port=0, grpc_port=0) as started:
            yield started


def tournament(judge: Judge, images: list[np.ndarray]) -> list[float]:
    """Compute the scores that the service must give."""
    played = Tournament(seeding(PROMPT, images))
    while pairs := played.next_round():
        played.record(pairs, judge.compare([PairItem(images[a], images[b], PROMPT) for a, b in pairs]))
    return [score.value for score in played.result().scores]


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_served_judge_agrees_with_the_judge_in_process(
    service: serving.RunningService, judge: Judge, transport: str
) -> None:
    """A model in a replica ranks and compares like the same model in this process."""
    with RankingClient(address(service, transport), timeout_s=120) as client:
        ranking = client.rank(PROMPT, PICTURES, rewards={"judge": 1.0})
        result = ranking.rewards["judge"]
        assert result.scores == tournament(judge, PICTURES)
        assert len(set(result.scores)) > 2
        found = result.tournament
        assert found is not None
        assert found.comparisons <= 24
        assert found.flip_rate is not None
        assert 0 < found.flip_rate < 1
        assert found.unparsed == 0
        pair = PairItem(PICTURES[0], PICTURES[1], PROMPT)
        (expected,) = judge.compare([pair])
        answer = client.compare(PROMPT, pair.first, pair.second, model="judge", details=True)
        assert answer.winner == expected.winner
        assert answer.verdict is not None
        assert answer.verdict.flipped == expected.flipped
        assert answer.verdict.confidence == pytest.approx(expected.confidence, abs=1e-4)
        assert answer.verdict.details is not None
        assert len(answer.verdict.details["asked"]) == 2


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_served_judge_behind_an_endpoint(service: serving.RunningService, transport: str) -> None:
    lights = [image.mean() for image in PICTURES[:6]]
    with RankingClient(address(service, transport), timeout_s=120, retries=0) as client:
        ranking = client.rank("a cat", PICTURES[:6], rewards={"remote": 1.0})
        assert ranking.order == np.argsort(lights)[::-1].tolist()
        found = ranking.rewards["remote"].tournament
        assert found is not None
        assert (found.comparisons, found.flip_rate, found.unparsed) == (15, 0, 0)
        with pytest.raises(errors.RewardError, match="answered 401") as caught:
            client.rank("locked", PICTURES[:6], rewards={"remote": 1.0})
        assert caught.value.reward == "remote"


def test_comparisons_are_spread_over_the_replicas(service: serving.RunningService, witnessed: Path) -> None:
    with RankingClient(str(service.http_url), timeout_s=120) as client:
        for seed in range(3):
            client.score([Group(str(seed), PICTURES)], rewards=["two"])
    shares = [sum(map(int, file.read_text().split())) for file in witnessed.iterdir()]
    assert len(shares) == 2
    assert sum(shares) >= 3 * 20
    assert min(shares) > sum(shares) / 4


def test_the_deadline_holds_for_the_whole_tournament(service: serving.RunningService) -> None:
    """Every batch meets the deadline, but the whole tournament does not."""
    with (
        RankingClient(str(service.http_url), timeout_s=120, retries=0) as client,
        pytest.raises(errors.RewardTimeoutError, match=r"deadline of 1\.2 s") as caught,
    ):
        client.rank("p", PICTURES, rewards={"slow": 1.0})
    assert caught.value.reward == "slow"


def test_through_transformers_serve(model: Path, judge: Judge, tmp_path: Path) -> None:
    """The verdicts of the real server are those of the model in this process.

    The server ignores `response_format`, as its log says.
    """
    log = tmp_path / "log"
    with running(model, free_port(), log) as url:
        asked = rewards.load("judge", backend="endpoint", model=str(model), base_url=url, concurrency=2)
        assert isinstance(asked, Judge)
        pairs = [PairItem(one, two, PROMPT) for one, two in zip(PICTURES[:4], PICTURES[4:], strict=True)]
        found, expected = asked.compare(pairs), judge.compare(pairs)
        assert [outcome(one) for one in found] == [outcome(one) for one in expected]  # and every answer could be read
        other = rewards.load("judge", backend="endpoint", model="another", base_url=url)
        assert isinstance(other, Judge)
        with pytest.raises(errors.RewardError, match="answered 400"):
            other.compare(pairs[:1])
        assert httpx.get(f"{url.removesuffix('/v1')}/health").is_success
    assert "response_format" in log.read_text()


def outcome(comparison: Comparison) -> tuple[str, bool | None, int]:
    return comparison.winner, comparison.flipped, comparison.unparsed


def test_the_command_line(model: Path, judge: Judge, tmp_path: Path) -> None:
    """`score` and `compare` work without a server."""
    for index, image in enumerate(PICTURES[:5]):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    files = [f"{index}.png" for index in range(5)]

    def run(*arguments: str) -> str:
        given = [sys.executable, "-m", "drpo_rewards", *arguments, "--model", str(model), "--prompt", PROMPT]
        done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    answer = json.loads(run("score", "judge", "--option", "device=cpu", "--json", *files))
    assert [entry["score"] for entry in answer["scores"]] == tournament(judge, PICTURES[:5])
    assert answer["tournament"]["comparisons"] == 10
    assert all(entry["standard_error"] > 0 for entry in answer["scores"])
    one = json.loads(run("compare", "judge", "--option", "device=cpu", "--json", "0.png", "1.png"))
    (expected,) = judge.compare([PairItem(PICTURES[0], PICTURES[1], PROMPT)])
    assert (one["winner"], one["flipped"]) == (expected.winner, expected.flipped)
    assert "10 comparisons" in run("score", "judge", *files)
