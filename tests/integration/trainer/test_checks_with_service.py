"""The check before a start, against a ranking service that runs."""

from __future__ import annotations

import pytest
from support.service import Served

from drpo.checks import Plan
from drpo.checks.rewards import check_rewards
from drpo.config import load_config

pytestmark = pytest.mark.integration


def find_wrong(*overrides: str) -> list[str]:
    plan = Plan(load_config("shapes", overrides))
    return [f"{finding.named}; {finding.fix}" for finding in check_rewards(plan) if finding.state == "wrong"]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_names_are_compared_with_those_of_the_service(served: Served, scheme: str) -> None:
    address = served.http_url if scheme == "http" else served.grpc_url
    service = f"rewards.address={address}"
    assert find_wrong(service) == []
    assert find_wrong(service, "rewards.weights={sharpness: 1, geneval: 1}", "evaluation.reward=sharpness") == []
    (line,) = find_wrong(service, "rewards.weights={sharpnes: 1}")
    assert f"the service at {address} has no reward 'sharpnes'; did you mean sharpness?" in line
    (line,) = find_wrong(service, "rewards.mixture=bth")
    assert "has no mixture 'bth'; did you mean both?" in line
    (line,) = find_wrong(service, "rewards.weights={sharpness: 1}", "evaluation.metric=strict")
    assert "evaluation.metric: the reward 'sharpness' has no metric 'strict'; it declares none" in line
