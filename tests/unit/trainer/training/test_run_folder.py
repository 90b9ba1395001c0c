"""The folder of a run."""

from __future__ import annotations

import pytest

from drpo.config import load_config, parse_config
from drpo.errors import ConfigError
from drpo.training.run_folder import create_run, find_run, read_config


def test_a_run_keeps_its_config_and_its_name(tmp_path):
    config = load_config("shapes", [f"run.folder={tmp_path}"])
    first, second = create_run(config), create_run(config)
    assert first != second
    assert read_config(first) == config
    assert find_run(first / "checkpoints" / "step-000002" / "adapter") == find_run(first) == first
    assert find_run(tmp_path) is None
    named = parse_config({"run": {"folder": str(tmp_path), "name": "mine"}})
    create_run(named)
    with pytest.raises(ConfigError, match="--resume"):
        create_run(named)
