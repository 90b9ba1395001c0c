"""Ray Serve accepts each Serve config in deploy/cluster, and its application can be built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema
from support import ROOT

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError
from drpo_rewards.serving import ServiceConfig, app

CLUSTER = ROOT / "deploy" / "cluster"
CONFIGS = sorted(CLUSTER.glob("serve*.yaml"))


def application(file: Path) -> dict[str, Any]:
    """The only application of a Serve config."""
    (settings,) = yaml.safe_load(file.read_text())["applications"]
    return settings


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_ray_serve_accepts_it(file: Path) -> None:
    schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    assert schema.proxy_location == "Disabled"
    assert [application.import_path for application in schema.applications] == ["drpo_rewards.serving.app:ranking"]
    assert [application.name for application in schema.applications] == ["ranking"]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_an_application_is_built_from_it(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = application(file)["args"]
    with pytest.raises(ConfigError, match="there are no API keys"):
        app.ranking(args)
    keys = tmp_path / "api-key"
    keys.write_text("a-key\n")
    monkeypatch.setenv("DRPO_API_KEYS_FILE", str(keys))
    assert isinstance(app.ranking(args), serve.Application)
    with pytest.raises(ConfigError, match="did you mean rewards"):
        app.ranking(args | {"reward": {}})


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_gateways_and_rewards_run_on_their_nodes(file: Path) -> None:
    settings = ServiceConfig.model_validate(application(file)["args"])
    assert settings.gateway_resources == {"gateways": 1}
    assert '"gateways": 8' in (CLUSTER / "head.sh").read_text()
    assert (settings.http_port, settings.grpc_port) == (8000, 9000)
    for reward in settings.rewards.values():
        assert reward.resources == {"rewards": 0.001}
        assert reward.type in rewards.CATALOGUE
    assert sum(reward.num_gpus for reward in settings.rewards.values()) <= 1


def test_a_reward_in_an_application_of_its_own() -> None:
    settings = {"type": "geneval", "options": {"detector": "shapes"}}
    assert isinstance(app.reward({"name": "shapes", **settings}), serve.Application)
    with pytest.raises(ConfigError, match="add `name`"):
        app.reward(settings)
    with pytest.raises(ConfigError, match="did you mean options"):
        app.reward({"name": "shapes", "type": "geneval", "option": {}})
