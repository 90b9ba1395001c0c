"""A run that leaves its mixture to the service goes on with the same one only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drpo.checks import Plan
from drpo.checks.rewards import check_rewards
from drpo.config import RewardsConfig, load_config
from drpo.errors import DrpoError
from drpo.training.mixture import find_other_weights, resolve_weights, settle_weights
from drpo_rewards.api.contract import ModelInfo

REWARDS = [ModelInfo(name="a"), ModelInfo(name="b")]
MIXTURES = [
    ModelInfo(name="default", kind="mixture", weights={"a": 1.0}),
    ModelInfo(name="both", kind="mixture", weights={"a": 1.0, "b": 2.0}),
]


def test_weights_are_those_of_the_settings_or_of_the_service() -> None:
    assert resolve_weights(RewardsConfig(weights={"b": 3.0}), [*REWARDS, *MIXTURES]) == {"b": 3.0}
    assert resolve_weights(RewardsConfig(mixture="both"), [*REWARDS, *MIXTURES]) == {"a": 1.0, "b": 2.0}
    assert resolve_weights(RewardsConfig(), [*REWARDS, *MIXTURES]) == {"a": 1.0}
    assert resolve_weights(RewardsConfig(), REWARDS) == {"a": 1.0, "b": 1.0}


def test_a_run_goes_on_with_the_rankings_it_had(tmp_path: Path) -> None:
    choices = tmp_path / "choices.json"
    plan = Plan(load_config("shapes"), run_dir=tmp_path)
    assert not any(finding.state == "wrong" for finding in check_rewards(plan)), "a run of before has kept none"
    choices.write_text(json.dumps({"weights": {"geneval": 1.0}}))
    assert not any(finding.state == "wrong" for finding in check_rewards(plan))
    choices.write_text(json.dumps({"decode_chunk": 4, "weights": {"geneval": 1.0, "clip": 0.5}}))
    (wrong,) = [finding for finding in check_rewards(plan) if finding.state == "wrong"]
    assert "were ranked by 1 x geneval, 0.5 x clip, and this service would rank by 1 x geneval" in wrong.found


def test_what_counts_is_kept_at_the_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("shapes", ["rewards.address=grpc://127.0.0.1:1", "rewards.retries=0"])
    settle_weights(config, tmp_path)  # no service yet: its rankings are waited for, and nothing is kept
    assert find_other_weights(tmp_path, {"a": 1.0}) == ""

    offered = [*REWARDS, *MIXTURES]

    class Client:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

        def models(self) -> list[ModelInfo]:
            return offered

    monkeypatch.setattr("drpo.training.mixture.make_ranking_client", Client)
    settle_weights(config, tmp_path)
    assert json.loads((tmp_path / "choices.json").read_text())["weights"] == {"a": 1.0}
    settle_weights(config, tmp_path)
    offered[2] = offered[2].model_copy(update={"weights": {"b": 1.0}})
    with pytest.raises(DrpoError, match="so far were ranked by 1 x a, and this service would rank by 1 x b"):
        settle_weights(config, tmp_path)
    assert json.loads((tmp_path / "choices.json").read_text())["weights"] == {"a": 1.0}
