"""The check before a start, against a ranking service that runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from support.service import Served, config

from drpo.checks import Plan
from drpo.checks.rewards import check_rewards
from drpo.config import Config, load_config
from drpo.errors import DrpoError
from drpo.training.mixture import settle_mixture
from drpo_rewards import serving

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


def test_prompts_that_a_running_reward_refuses_are_found(served: Served, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    settings = [f"rewards.address={served.grpc_url}", "rewards.weights={geneval: 1}", "prompts.source=file"]
    settings += [f"prompts.path={prompts}", "prompts.split=train"]
    prompts.write_text("a red circle\na blue ring, big\ntwo squares\n")
    lines = find_wrong(*settings)
    assert len(lines) == 2, lines  # the evaluation has the same prompts
    for section, line in zip(("prompts", "evaluation"), lines, strict=True):
        assert f"'geneval' refuses 1 of the 3 prompts of {section}: prompt 2 ('a blue ring, big'): " in line
    prompts.write_text("a red circle\ntwo squares\n")
    assert find_wrong(*settings) == []


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_run_goes_on_with_the_mixture_of_the_service_that_it_began_with(
    served: Served, scheme: str, tmp_path: Path
) -> None:
    """The worker keeps it at the first start; the check and the worker compare it at the next one."""

    def load(*more: str) -> Config:
        address = served.http_url if scheme == "http" else served.grpc_url
        return load_config("shapes", [f"rewards.address={address}", *more])

    def find(config: Config) -> list[str]:
        return [one.found for one in check_rewards(Plan(config, run_dir=tmp_path)) if one.state == "wrong"]

    settle_mixture(load(), tmp_path)
    kept = json.loads((tmp_path / "choices.json").read_text())["mixture"]
    assert kept == {"weights": {"geneval": 1.0}, "normalize": "zscore"}
    settle_mixture(load("rewards.weights={geneval: 2}"), tmp_path)  # ranks in the same way
    assert find(load("rewards.weights={geneval: 2}")) == []
    other = load("rewards.mixture=both")
    before = "so far were ranked by 1 geneval (zscore), and this service would rank by 0.7 geneval + 0.3 sharpness"
    assert before in find(other)[0]
    with pytest.raises(DrpoError, match=re.escape(before)):
        settle_mixture(other, tmp_path)
    assert json.loads((tmp_path / "choices.json").read_text())["mixture"] == kept


@pytest.mark.thorough
def test_names_behind_a_handle_are_checked_too(ray_cluster: None) -> None:
    """By this process, which belongs to the cluster, and by a command that joins it for the check."""
    with serving.start(config(), http_port=None, grpc_port=None) as service:
        address = f"rewards.address={service.handle_address}"
        assert find_wrong(address, "evaluation.reward=redness") == []
        (line,) = find_wrong(address, "rewards.mixture=bth")
        assert "has no mixture 'bth'; did you mean both?" in line
        ray_address = ray.get_runtime_context().gcs_address
        command = [sys.executable, "-m", "drpo", "train", "--preset", "shapes", "--dry-run"]
        command += ["--rewards.address", service.handle_address, "--run.ray_address", ray_address]
        command += ["--rewards.mixture", "bth"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 2, done.stderr
        assert "has no mixture 'bth'; did you mean both?" in done.stdout + done.stderr
