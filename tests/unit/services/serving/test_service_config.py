"""The service's configuration: errors are found before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.service import example

from drpo_rewards.api.keys import key_is_known
from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.config import CONFIGS, RewardConfig, ServiceConfig
from drpo_rewards.serving.operate.declared import read_declared_models
from drpo_rewards.serving.operate.doctor import examine


def write_config(folder: Path, text: str) -> Path:
    path = folder / "service.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_load_by_name(path: Path) -> None:
    config = ServiceConfig.load(path.stem)
    assert "default" in config.mixtures
    assert ServiceConfig.load(path) == config
    assert ServiceConfig.model_validate(config.model_dump(mode="json")) == config  # as it is sent to the gateway


def test_the_config_in_the_guide_is_valid(tmp_path: Path) -> None:
    reward = ServiceConfig.load(write_config(tmp_path, example("api_keys_file: keys.txt"))).rewards["geneval"]
    assert reward.memory is not None
    assert reward.memory.source == "estimated"


def test_without_mixtures_all_rewards_have_the_same_weight(tmp_path: Path) -> None:
    config = ServiceConfig.load(write_config(tmp_path, "rewards: {a: {type: x:Y}, b: {type: x:Y}}"))
    assert config.mixtures["default"].rewards == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rewards: {a: {type: x:Y, num_replica: 2}}", "unknown key rewards.a.num_replica; did you mean num_replicas?"),
        ("rewards: {}", "rewards: .*at least 1"),
        ("rewards: {a: {type: x:Y, batch_size: 0}}", "rewards.a.batch_size"),
        ("rewards: {a: {type: x:Y}}\nmixtures: {m: {rewards: {b: 1}}}", "mixture 'm' names 'b'"),
        ("rewards: {a: {type: x:Y}}\nmixtures: {m: {rewards: {a: 0}}}", "all weights are 0"),
        ("rewards: {a/b: {type: x:Y}}", "cannot be a name"),
        ("rewards: {größe: {type: x:Y}}", "'größe' cannot be a name"),
        (f"rewards: {{{'a' * 129}: {{type: x:Y}}}}", "cannot be a name"),
        ("rewards: {a: {type: x:Y, autoscaling: {max_replica: 2}}}", "no key max_replica; did you mean max_replicas"),
        ("rewards: {a: {type: x:Y, autoscaling: {min_replicas: 3, max_replicas: 2}}}", "rewards.a.autoscaling"),
        ("rewards: {a: {type: x:Y, autoscaling: {max_replicas: 1000000}}}", "max_replicas must be .* equal to 4096"),
        ("rewards: {a: {type: x:Y, num_replicas: 2, autoscaling: {max_replicas: 2}}}", "exclude each other"),
        ("rewards: {a: {type: x:Y, num_replicas: 1000000}}", "rewards.a.num_replicas: .*less than or equal to 4096"),
        ("rewards: {a: {type: x:Y, max_queued: 3000000000}}", "rewards.a.max_queued: .*less than or equal to 1000000"),
        ("rewards: {a: {type: x:Y, max_ongoing: 3000000000}}", "rewards.a.max_ongoing"),
        ("num_gateways: 1000000\nrewards: {a: {type: x:Y}}", "num_gateways: .*less than or equal to 1024"),
        ("rewards: {a: {type: x:Y}}\nlimits: {max_ongoing: 3000000000}", "limits.max_ongoing"),
        ("rewards: {a: {type: x:Y}}\nlimits: {max_queued: 3000000000}", "limits.max_queued"),
        ("rewards: {a: {type: x:Y, resources: {pool: 0}}}", "rewards.a.resources.pool"),
        ("rewards: {a: {type: x:Y, memory: {gpu: 3}}}", "unknown key rewards.a.memory.gpu; did you mean gpu_gb"),
        ("rewards: [", "not valid YAML"),
        ("", "is empty"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ServiceConfig.load(write_config(tmp_path, text))


def test_numbers_of_replicas_may_be_text() -> None:
    reward = RewardConfig(type="x:Y", autoscaling={"min_replicas": "2", "max_replicas": "5"})
    assert (reward.first_replicas, reward.most_replicas) == (2, 5)


def test_an_unknown_config_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"one of: .*shapes"):
        ServiceConfig.load("shape")


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first  # of the trainer\n\n# a comment\nsecond\n")
    monkeypatch.setenv("DRPO_REWARDS_API_KEYS", "third, fourth")
    digests = ServiceConfig(rewards={"a": {"type": "x:Y"}}, api_keys_file=keys).api_key_digests()
    assert all(key_is_known(key, digests) for key in ("first", "second", "third", "fourth"))
    assert not any(key_is_known(key, digests) for key in (None, "", "fifth", "first ", "# a comment"))


def test_without_keys_other_machines_are_not_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DRPO_REWARDS_API_KEYS", raising=False)
    rewards = {"a": {"type": "x:Y"}}
    for host in ("127.0.0.1", "localhost", "::1"):
        assert ServiceConfig(rewards=rewards, host=host).api_key_digests() == []
        assert key_is_known(None, [])
    for host in ("0.0.0.0", "10.0.0.1", "example.org"):
        with pytest.raises(ConfigError, match="can be reached from other machines"):
            ServiceConfig(rewards=rewards, host=host).api_key_digests()
    assert ServiceConfig(rewards=rewards, host="0.0.0.0", allow_no_auth=True).api_key_digests() == []
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(ConfigError, match="holds no key"):
        ServiceConfig(rewards=rewards, api_keys_file=tmp_path / "keys").api_key_digests()
    with pytest.raises(ConfigError, match="cannot read"):
        ServiceConfig(rewards=rewards, api_keys_file=tmp_path / "missing").api_key_digests()


@pytest.mark.parametrize(
    ("runtime_env", "message"),
    [
        ({"pips": ["x"]}, "no key pips; did you mean pip"),
        ({"working_dir": "."}, "no key working_dir"),
        ({"pip": ["x"], "conda": "y"}, "Ray does not take it: .*pip.*conda"),
        ({"env_vars": {"A": 1}}, "Ray does not take it"),
        ({"pip": 5}, "Ray does not take it"),
    ],
)
def test_an_environment_that_ray_does_not_take(runtime_env: dict[str, Any], message: str) -> None:
    reward = {"type": "support.rewards:Redness", "runtime_env": runtime_env}
    with pytest.raises(ValidationError, match=message):
        ServiceConfig.model_validate({"rewards": {"own": reward}})


def test_the_class_of_a_reward_with_an_environment_may_be_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("rewards: {own: {type: 'not.here:Reward', runtime_env: {pip: [not-here]}}}")
    assert [info.name for info in read_declared_models(str(file))] == ["own", "default"]
    (finding,) = (found for found in examine(str(file)) if found.about == "own" and found.check == "files")
    assert finding.state == "skipped"
