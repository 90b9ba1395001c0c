"""Deployment of rewards: with `own_app` and upgraded separately, scaled by load, on certain machines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ray import serve
from support.service import PICTURES, REDS

from drpo_rewards import RankingClient, RankResponse, serving
from drpo_rewards.errors import ConfigError, InvalidRequestError
from drpo_rewards.serving import app

pytestmark = [
    pytest.mark.integration,
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning"),
]

APP = "deployments"
HERE = {"node:__internal_head__": 0.001}  # a resource that Ray gives the first machine of every cluster


def config(own: str = "TracedRedness", **changes: Any) -> serving.ServiceConfig:
    rewards = {
        "own": {"type": f"support.rewards:{own}", "own_app": True, "resources": HERE, **changes},
        # a batch is just one request's images
        "staged": {"type": "support.rewards:Overlapping", "deadline_s": 150, "batch_size": len(PICTURES)},
        "scaled": {
            "type": "support.rewards:TracedRedness",
            "options": {"delay_s": 0.1},
            "batch_size": 1,
            "autoscaling": {
                "min_replicas": 1,
                "max_replicas": 2,
                "target_ongoing_requests": 1,
                "upscale_delay_s": 0,
                "metrics_interval_s": 0.2,
                "look_back_period_s": 1,
            },
        },
    }
    for reward in rewards.values():
        reward["num_cpus"] = 0.1
    return serving.ServiceConfig.model_validate({"rewards": rewards})


@pytest.fixture(scope="module")
def service(ray_cluster: None) -> Iterator[serving.RunningService]:
    with serving.start(config(), app_name=APP, http_port=0, grpc_port=0) as running:
        yield running


@pytest.fixture
def client(service: serving.RunningService) -> Iterator[RankingClient]:
    assert service.http_url is not None
    with RankingClient(service.http_url, timeout_s=200, retries=0) as opened:
        yield opened


def rank(client: RankingClient, reward: str, **options: Any) -> RankResponse:
    return client.rank("p", PICTURES, rewards={reward: 1.0}, **options)


def test_a_reward_with_its_own_app_is_upgraded_during_calls(client: RankingClient) -> None:
    assert rank(client, "own").rewards["own"].scores == pytest.approx(REDS.tolist())
    stop = threading.Event()
    seen: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            seen.append(rank(client, "own").rewards["own"].version)

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        try:
            serving.upgrade(config("Darkness", max_surge_percent=100), "own", app_name=APP)
            upgraded = rank(client, "own").rewards["own"]
        finally:
            stop.set()
        for asked in asking:
            asked.result()  # raises what any of the calls raised
    assert upgraded.version == "darkness-1"
    assert upgraded.scores == pytest.approx(PICTURES.mean(axis=(1, 2, 3)).tolist())
    assert {"redness-1", "darkness-1"} == set(seen)
    assert next(info for info in client.models() if info.name == "own").version == "darkness-1"
    serving.upgrade(config(), "own", app_name=APP)  # the old replica stops first
    assert rank(client, "own").rewards["own"].version == "redness-1"


def test_a_serve_config_upgrades_one_application(client: RankingClient) -> None:
    entry = config("Darkness").rewards["own"].model_dump(exclude_unset=True)
    serve.run(app.reward({"name": "own", **entry}), name=f"{APP}-own", route_prefix=None)
    assert rank(client, "own").rewards["own"].version == "darkness-1"
    for kind, judges in (("BrighterOf", True), ("TracedRedness", False)):  # from scores to judgements, and back
        serving.upgrade(config(kind), "own", app_name=APP)
        assert (rank(client, "own").rewards["own"].tournament is not None) is judges


def test_a_batch_is_prepared_while_another_is_scored(client: RankingClient) -> None:
    means = PICTURES.mean(axis=(1, 2, 3)).tolist()
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(rank, client, "staged", metadata={"how": "wait"})
        while not waits.done():
            assert rank(client, "staged").rewards["staged"].scores == pytest.approx(means)
        assert waits.result().rewards["staged"].scores == pytest.approx(means)


def test_an_item_that_cannot_be_prepared_fails_only_its_group(client: RankingClient) -> None:
    with ThreadPoolExecutor(6) as threads:
        asked = [
            threads.submit(rank, client, "staged", metadata={"how": "refuse"} if odd else None) for odd in (0, 1) * 6
        ]
    for odd, answer in zip((0, 1) * 6, asked, strict=True):
        if odd:
            with pytest.raises(InvalidRequestError, match="must not be `refuse`"):
                answer.result()
        else:
            assert answer.result().rewards["staged"].version == "overlapping-1"


def test_load_starts_more_replicas(client: RankingClient) -> None:
    pids: set[int] = set()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(60):
            answers = threads.map(
                lambda _: client.rank("p", PICTURES[:2], rewards={"scaled": 1.0}, details=True), range(16)
            )
            for answer in answers:
                pids |= {detail["pid"] for detail in answer.rewards["scaled"].details or [] if detail}
            if len(pids) == 2:
                break
    assert len(pids) == 2


def test_rewards_that_cannot_be_upgraded_or_placed(service: serving.RunningService) -> None:
    with pytest.raises(ConfigError, match="'scaled' is not a reward with `own_app: true`"):
        serving.upgrade(config(), "scaled", app_name=APP)
    with pytest.raises(ConfigError, match="no application 'elsewhere-own'"):
        serving.upgrade(config(), "own", app_name="elsewhere")
    with pytest.raises(ConfigError, match="ask for 1 big_gpus in total, but this Ray cluster has 0; lower `resources`"):
        serving.start(config(resources={"big_gpus": 1}), app_name="elsewhere", http_port=0)
