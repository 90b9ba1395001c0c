"""One service for all tests of this folder, and a second one with an API key and small limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from support.service import KEY, TRANSPORTS, address, config

from drpo_rewards import AsyncRankingClient, serving


@pytest.fixture(scope="package")
def service(ray_cluster: None) -> Iterator[serving.RunningService]:
    with serving.start(config(), http_port=0, grpc_port=0) as running:
        yield running


@pytest.fixture(scope="package")
def guarded(
    service: serving.RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[serving.RunningService]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    settings = config(
        rewards={"redness": {"type": "support.rewards:TracedRedness"}},
        mixtures={},
        api_keys_file=keys,
        limits={
            "max_body_mb": 0.05,
            "max_body_mb_in_flight": 0.05,
            "body_idle_s": 10,
            "min_side": 1,
            "max_pixels": 400,
            "max_group_pixels": 6000,
        },
    )
    with serving.start(settings, app_name="guarded", http_port=0, grpc_port=0) as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
async def client(service: serving.RunningService, request: pytest.FixtureRequest) -> AsyncIterator[AsyncRankingClient]:
    async with AsyncRankingClient(address(service, request.param), timeout_s=200, retries=0) as opened:
        yield opened
