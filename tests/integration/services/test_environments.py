"""A reward with packages of its own, in a service whose environment has another version of them."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
from support.packaged import NAME, write_wheel
from support.service import PICTURES, serve_config

from drpo_rewards import RankingClient

pytestmark = [pytest.mark.integration, pytest.mark.thorough, pytest.mark.timeout(1200)]


def test_a_reward_has_another_version_of_a_library_than_the_gateway(tmp_path: Path) -> None:
    """The wheel is installed by Ray without an index, into a copy of this environment."""
    wheel = write_wheel(tmp_path, "0.0.7")
    options = ["--no-index", "--no-deps"]
    config = {
        "rewards": {
            "usual": {"type": "support.packaged:LibraryVersion", "num_cpus": 0.1},
            "own": {
                "type": "support.packaged:LibraryVersion",
                "num_cpus": 0.1,
                "runtime_env": {
                    "pip": {"packages": [str(wheel)], "pip_check": False, "pip_install_options": options},
                    "env_vars": {"OF_THE_TEST": "1"},
                },
            },
        },
        "deploy_timeout_s": 1000,
    }
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(config))
    here = importlib.metadata.version(NAME)
    assert here != "0.0.7"
    with serve_config(tmp_path, file) as running, RankingClient(running.http_url, timeout_s=100) as client:
        ranking = client.rank("a prompt", list(PICTURES[:3]), rewards={"usual": 1.0, "own": 1.0}, details=True)
    assert ranking.rewards["usual"].details == [{"version": here, "imported": None}] * 3
    assert ranking.rewards["own"].details == [{"version": "0.0.7", "imported": "0.0.7"}] * 3
    assert ranking.rewards["own"].scores == ranking.rewards["usual"].scores
