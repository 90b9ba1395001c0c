"""A run that leaves its mixture to the service goes on with the same one only."""

from __future__ import annotations

import json
from pathlib import Path

from drpo.checks import Plan
from drpo.checks.rewards import check_rewards
from drpo.config import RewardsConfig, load_config
from drpo.training.mixture import Mixture, find_other_mixture, resolve_mixture, settle_mixture
from drpo_rewards.api.contract import ModelInfo

REWARDS = [ModelInfo(name="a"), ModelInfo(name="b")]
MIXTURES = [
    ModelInfo(name="default", kind="mixture", weights={"a": 1.0}, normalize="rank"),
    ModelInfo(name="both", kind="mixture", weights={"a": 1.0, "b": 2.0}, normalize="none"),
]


def test_a_mixture_is_that_of_the_settings_or_of_the_service() -> None:
    def resolve(*models: ModelInfo, **rewards: object) -> tuple[dict[str, float], str]:
        found = resolve_mixture(RewardsConfig.model_validate(rewards), [*REWARDS, *models])
        return found.weights, found.normalize

    assert resolve(*MIXTURES, weights={"b": 3.0}) == ({"b": 3.0}, "zscore")
    assert resolve(*MIXTURES, mixture="both") == ({"a": 1.0, "b": 2.0}, "none")
    assert resolve(*MIXTURES, mixture="both", normalize="zscore") == ({"a": 1.0, "b": 2.0}, "zscore")
    assert resolve(*MIXTURES) == ({"a": 1.0}, "rank")
    assert resolve() == ({"a": 1.0, "b": 1.0}, "zscore")


def test_only_ratios_and_the_normalisation_count() -> None:
    half = Mixture(weights={"a": 0.5, "b": 0.5})
    assert half.ranks_like(Mixture(weights={"b": 1.0, "a": 1.0}))
    assert not half.ranks_like(Mixture(weights={"a": 0.5, "b": 0.50001}))
    assert not half.ranks_like(Mixture(weights={"a": 0.5, "b": -0.5}))
    assert not half.ranks_like(Mixture(weights={"a": 0.5}))
    assert not half.ranks_like(Mixture(weights=half.weights, normalize="none"))


def test_a_run_goes_on_with_the_rankings_it_had(tmp_path: Path) -> None:
    choices = tmp_path / "choices.json"
    plan = Plan(load_config("shapes"), run_dir=tmp_path)
    assert not any(finding.state == "wrong" for finding in check_rewards(plan)), "a run of before has kept none"
    choices.write_text(json.dumps({"mixture": {"weights": {"geneval": 2.0}, "normalize": "zscore"}}))
    assert not any(finding.state == "wrong" for finding in check_rewards(plan))
    choices.write_text(json.dumps({"decode_chunk": 4, "mixture": {"weights": {"geneval": 1.0, "clip": 0.5}}}))
    (wrong,) = [finding for finding in check_rewards(plan) if finding.state == "wrong"]
    assert "were ranked by 1 geneval + 0.5 clip (zscore), and this service would rank by 1 geneval (" in wrong.found
    for damaged in ({"weights": 3}, {"weights": {}, "normalize": "x"}, 7):
        choices.write_text(json.dumps({"mixture": damaged}))
        assert find_other_mixture(tmp_path, Mixture(weights={"geneval": 1.0})) == ""


def test_a_service_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    settle_mixture(load_config("shapes", ["rewards.address=grpc://127.0.0.1:1", "rewards.retries=0"]), tmp_path)
    assert find_other_mixture(tmp_path, Mixture(weights={"a": 1.0})) == ""
