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


@pytest.mark.parametrize(
    "place", [".", "adapter", "adapter-ema", "checkpoints/step-000002", "checkpoints/step-2/adapter"]
)
def test_a_run_is_found_from_its_own_places_only(tmp_path, place):
    run = create_run(load_config("shapes", [f"run.folder={tmp_path}"]))
    folder = run / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.safetensors").touch()
    assert find_run(folder) == find_run(folder / "a.safetensors") == run
    for other in ("styles", "styles/adapter", "samples/adapter"):
        assert find_run(run / other) is None


@pytest.mark.parametrize(
    "text", ["", "a: b: c", "\tx: 1", "[1, 2]", "model: {name: theirs}\nlora: {rank: 4}\n", "\xff", None]
)
def test_the_config_of_somebody_else_is_not_that_of_a_run(tmp_path, text):
    if text is None:
        (tmp_path / "config.yaml").mkdir()
    else:
        (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    for place in (".", "adapter", "checkpoints/step-1/adapter"):
        assert find_run(tmp_path / place) is None
