"""The metrics for Prometheus, and the ids of calls."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.service import PICTURES, TRANSPORTS, address

from drpo_rewards import AsyncRankingClient, errors, serving

pytestmark = pytest.mark.integration


def scrape(service: serving.RunningService) -> dict[tuple[str, ...], float]:
    """Read the samples by their name and their labels' values, in the order of the labels' names, without `gateway`."""
    response = httpx.get(f"{service.http_url}/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            assert sample.labels["gateway"]
            labels = sorted((key, value) for key, value in sample.labels.items() if key != "gateway")
            samples[sample.name.removeprefix("drpo_rewards_"), *(value for _, value in labels)] = sample.value
    return samples


async def test_calls_are_counted_over_every_transport(service: serving.RunningService) -> None:
    before = scrape(service)

    def more(*key: str) -> float:
        return after.get(key, 0.0) - before.get(key, 0.0)

    for transport in TRANSPORTS:
        async with AsyncRankingClient(address(service, transport), retries=0) as client:
            await client.rank("p", PICTURES[:6], rewards={"darkness": 1})
            with pytest.raises(errors.RewardError):
                await client.rank("p", PICTURES[:2], rewards={"failing": 1}, metadata={"how": "raise"})
            with pytest.raises(errors.UnknownRewardError):
                await client.compare("p", PICTURES[0], PICTURES[1], model="beauty")
    after = scrape(service)
    for transport in TRANSPORTS:
        assert more("requests_total", "ok", "rank", transport) == 1
        assert more("requests_total", "reward_failed", "rank", transport) == 1
        assert more("requests_total", "unknown_reward", "compare", transport) == 1
        assert more("images_total", "rank", transport) == 6
        assert more("request_seconds_count", "rank", transport) == 2
    assert more("errors_total", "reward_failed", "failing", "reward") == 3
    assert more("errors_total", "unknown_reward", "", "answer") == 3
    for stage, reward in (("decode", ""), ("reward", "darkness"), ("score", "darkness")):
        assert more("stage_seconds_count", reward, stage) == 3
    assert more("batch_images_sum", "darkness") == 18
    assert more("batch_seconds_count", "darkness") >= 3
    assert after["requests_in_flight",] == after["requests_waiting",] == after["reward_in_flight", "darkness"] == 0
    assert "reward_queue_images" in {key[0] for key in after}


def test_every_response_has_the_calls_id(service: serving.RunningService) -> None:
    url = f"{service.http_url}/v1/rank"
    refused = httpx.post(url, json={"prompt": ""}, headers={"x-request-id": "mine"})
    assert refused.json()["request_id"] == refused.headers["x-request-id"] == "mine"
    made = httpx.post(url, json={"prompt": ""}, headers={"x-request-id": "not an id!"})
    assert made.json()["request_id"].isalnum()
    missing = httpx.get(f"{service.http_url}/v1/nothing", headers={"x-request-id": "mine"})
    assert missing.json()["request_id"] == "mine"
