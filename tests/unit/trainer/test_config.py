"""Presets, overrides and what is refused before anything is loaded."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import yaml
from rich.console import Console
from support import ROOT

from drpo.cli.common import parse_overrides
from drpo.cli.progress import TrainingProgress
from drpo.config import Config, known_keys, load_config, override_config, parse_config, preset_names, runs_folder
from drpo.errors import ConfigError
from drpo.training.check import check_config
from drpo.training.run_folder import create_run, read_config


def test_the_config_needs_neither_torch_nor_ray():
    code = "import drpo.config, drpo.cli, sys; print({'torch', 'ray', 'diffusers'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_preset_is_valid():
    assert {"shapes", "sd-turbo-pickscore"} <= set(preset_names())
    for name in preset_names():
        assert load_config(name).preset == name


def test_the_paper_s_numbers():
    config = load_config("sd-turbo-pickscore")
    training = config.training
    assert (training.candidates, training.pairs, training.pair_strategy) == (24, 12, "random")
    assert training.groups_per_step == 8 * training.num_workers == 32
    assert (config.optimizer.lr, config.lora.rank) == (1e-4, 16)
    assert config.rewards.weights == {"pickscore": 1.0}


def test_overrides_reach_every_level():
    config = load_config(
        "shapes", ["training.steps=7", "optimizer.lr=3e-4", "objective.radii=[0.1, 0.3]", "run.name=x"]
    )
    assert config.training.steps == 7
    assert config.optimizer.lr == 3e-4
    assert config.objective.settings["radii"] == [0.1, 0.3]
    assert override_config(config, ["training.pipeline=false"]).training.pipeline is False


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("training.step=3", "did you mean training.steps?"),
        ("trainin.steps=3", "did you mean training?"),
        ("steps=3", "did you mean training.steps?"),
        ("optimizer.learning_rate=1", "optimizer has lr, betas"),
        ("model.generater=x", "did you mean model.generator?"),
        ("training.candidates=1", "greater than or equal to 2"),
        ("training.steps=many", "training.steps = 'many'"),
        ("training.num_workers=9", "training.groups_per_step"),
        ("training.pair_strategy=extremes training.candidates=24 training.pairs=13", "needs 26"),
        ("rewards.mixture=a rewards.weights={b: 1}", "not both"),
        ("training.steps.more=3", "is a value, not a section"),
        ("training.steps=[1", "not a YAML value"),
        ("training.steps", "has no value"),
    ],
)
def test_what_is_refused_and_how(override, answer):
    with pytest.raises(ConfigError, match="(?s).*" + answer.replace("?", r"\?").replace("[", r"\[")):
        load_config("shapes", override.split(" ") if "{" not in override else override.split(" ", 1))


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        load_config("shapes", ["training.step=3", "lora.rank=0"])
    assert len(str(error.value).splitlines()) == 2


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean shapes\?"):
        load_config("shape")


def test_the_objective_s_settings_are_checked_in_the_driver(tmp_path):
    config = load_config("shapes", ["objective.radius=[1.0]"])
    with pytest.raises(ConfigError, match=r"objective\.radius; did you mean radii\?"):
        check_config(config)
    with pytest.raises(ConfigError, match="no objective 'dpro'"):
        check_config(load_config("shapes", ["objective.name=dpro"]))


def test_the_driver_looks_for_files_and_names(tmp_path):
    config = load_config(
        "sd-turbo-pickscore", [f"prompts.path={tmp_path}/none.jsonl", f"features.path={tmp_path}/none"]
    )
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert "features.path" in str(error.value)
    assert "none.jsonl" in str(error.value)


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    checked = check_config(load_config("shapes", ["model.generator=model"]))
    assert checked.model.generator == str(tmp_path / "model")
    assert checked.run.folder == tmp_path / "runs"
    assert checked.features.path == "shapes"


def test_a_run_keeps_its_config_and_its_name(tmp_path):
    config = load_config("shapes", [f"run.folder={tmp_path}"])
    first, second = create_run(config), create_run(config)
    assert first != second
    assert read_config(first) == config
    named = parse_config({"run": {"folder": str(tmp_path), "name": "mine"}})
    create_run(named)
    with pytest.raises(ConfigError, match="--resume"):
        create_run(named)


def test_the_resolved_config_names_every_key():
    values = yaml.safe_load(Config().to_yaml())
    for key in known_keys():
        section, _, name = key.partition(".")
        assert not name or name in values[section]


def test_overrides_of_the_command_line():
    arguments = ["--training.steps", "5", "--optimizer.lr=1e-3"]
    assert parse_overrides(arguments) == ["training.steps=5", "optimizer.lr=1e-3"]
    for wrong in (["--steps", "5"], ["training.steps"], ["--training.steps"]):
        with pytest.raises(ConfigError):
            parse_overrides(wrong)


def test_settings_of_the_place_lie_between_preset_and_overrides(tmp_path, monkeypatch):
    site = tmp_path / "site.yaml"
    site.write_text("run: {folder: /volume/runs}\nrewards: {service: null, address: serve://ranking}\n")
    monkeypatch.setenv("DRPO_SITE", str(site))
    config = load_config("shapes", ["rewards.address=grpc://other:9000"])
    assert str(config.run.folder) == "/volume/runs"
    assert config.rewards.service is None
    assert config.rewards.address == "grpc://other:9000"
    assert config.training.steps == load_config("shapes").training.steps
    assert str(runs_folder()) == "/volume/runs"


def test_settings_of_the_place_are_checked_too(tmp_path, monkeypatch):
    site = tmp_path / "site.yaml"
    monkeypatch.setenv("DRPO_SITE", str(site))
    with pytest.raises(ConfigError, match="DRPO_SITE"):
        load_config("shapes")
    site.write_text("rewards: {adress: serve://ranking}\n")
    with pytest.raises(ConfigError, match=r"did you mean rewards\.address"):
        load_config("shapes")


def test_the_clusters_settings_fit_every_preset(monkeypatch):
    """deploy/cluster/site.yaml, which the image has."""
    monkeypatch.setenv("DRPO_SITE", str(ROOT / "deploy" / "cluster" / "site.yaml"))
    for preset in preset_names():
        assert load_config(preset).rewards.address == "serve://ranking"


def test_a_key_that_is_named_must_be_there(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        check_config(load_config("shapes", ["rewards.api_key_env=NO_SUCH_KEY"]))
    monkeypatch.setenv("NO_SUCH_KEY", "now there is one")
    check_config(load_config("shapes", ["rewards.api_key_env=NO_SUCH_KEY"]))


def test_progress_in_a_log_is_a_line_now_and_then():
    log = io.StringIO()
    config = load_config("shapes", ["training.steps=50"])
    with TrainingProgress(config, Console(file=log)) as progress:
        for step in range(1, 51):
            progress(
                {
                    "step": step,
                    "time_s": step,
                    "reward/redness": 0.5,
                    "loss": 1.0,
                    "images_per_s": 9,
                    "groups_dropped": 0,
                }
            )
    first, last = log.getvalue().splitlines()
    assert first.split()[:4] == ["training", "2%", "step", "1"]
    assert "redness 0.500" in last
    assert last.split()[1] == "100%"
