"""Presets, overrides, site settings, and the mistakes that are refused before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import ROOT

from drpo.config import Config, known_keys, load_config, override_config, preset_names, runs_folder
from drpo.errors import ConfigError


def test_the_config_needs_neither_torch_nor_ray():
    code = "import drpo.config, drpo.cli, sys; print({'torch', 'ray', 'diffusers'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_preset_is_valid():
    assert {"shapes", "sd-turbo-pickscore"} <= set(preset_names())
    for name in preset_names():
        assert load_config(name).preset == name


def test_the_preset_has_the_numbers_of_the_paper():
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
    ("override", "message"),
    [
        ("training.step=3", "did you mean training.steps?"),
        ("training.keep_best=geneval evaluation.every=0", "training.keep_best needs evaluations during training"),
        (
            "training.stop_if=guard/distance_to_base>2 evaluation.every=9 evaluation.images_per_prompt=1",
            "training.stop_if: guard metrics compare the images of a prompt: set evaluation.images_per_prompt",
        ),
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
        ("objective.radii=[1", "not a YAML value"),
        ("training.steps", "has no value"),
        ("trackers.use=wandb,tensorboard,wandb", "'wandb' is given twice"),
        ("evaluation.rewards=a,b,a", "'a' is given twice"),
        ("evaluation.grid.prompts=x,y,x", "'x' is given twice"),
    ],
)
def test_mistakes_are_refused_with_a_message(override, message):
    with pytest.raises(ConfigError, match="(?s).*" + message.replace("?", r"\?").replace("[", r"\[")):
        load_config("shapes", override.split(" ") if "{" not in override else override.split(" ", 1))


def test_all_problems_are_listed_together():
    with pytest.raises(ConfigError) as error:
        load_config("shapes", ["training.step=3", "lora.rank=0"])
    assert len(str(error.value).splitlines()) == 2


def test_for_an_unknown_preset_the_nearest_one_is_suggested():
    with pytest.raises(ConfigError, match=r"did you mean shapes\?"):
        load_config("shape")


def test_the_yaml_of_a_config_has_every_key():
    values = yaml.safe_load(Config(offline={}, training={"ema": {}}).to_yaml())
    for key in known_keys():
        inner = values
        for part in key.split("."):
            assert part in inner, key
            inner = inner[part]


def test_site_settings_override_the_preset_and_are_overridden_by_the_command_line(tmp_path, monkeypatch):
    site = tmp_path / "site.yaml"
    site.write_text("run: {folder: /volume/runs}\nrewards: {service: null, address: serve://ranking}\n")
    monkeypatch.setenv("DRPO_SITE", str(site))
    config = load_config("shapes", ["rewards.address=grpc://other:9000"])
    assert str(config.run.folder) == "/volume/runs"
    assert config.rewards.service is None
    assert config.rewards.address == "grpc://other:9000"
    assert config.training.steps == load_config("shapes").training.steps
    assert str(runs_folder()) == "/volume/runs"


def test_site_settings_are_checked(tmp_path, monkeypatch):
    site = tmp_path / "site.yaml"
    monkeypatch.setenv("DRPO_SITE", str(site))
    with pytest.raises(ConfigError, match="DRPO_SITE"):
        load_config("shapes")
    site.write_text("rewards: {adress: serve://ranking}\n")
    with pytest.raises(ConfigError, match=r"did you mean rewards\.address"):
        load_config("shapes")


def test_the_site_settings_of_the_cluster_fit_every_preset(monkeypatch):
    """The file is deploy/cluster/site.yaml, which the image contains."""
    monkeypatch.setenv("DRPO_SITE", str(ROOT / "deploy" / "cluster" / "site.yaml"))
    for preset in preset_names():
        assert load_config(preset).rewards.address == "serve://ranking"


def test_a_preset_extends_another_one(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "extends: shapes\nrewards: {weights: {a: 1.0, b: 2.0}}\ntraining: {candidates: 8, rollouts: {rounds: 9}}\n"
    )
    (tmp_path / "top.yaml").write_text(
        "extends: base.yaml\nlora: null\nrewards: {weights: {c: 1.0}}\ntraining: {rollouts: {keep: 9}}\n"
        "features: {name: raw_latent, path: null}\n"
    )
    config = load_config(tmp_path / "top.yaml")
    assert config.preset == "top"
    assert config.model.generator == "shapes"
    assert config.lora is None
    assert config.rewards.weights == {"c": 1.0}
    assert (config.training.candidates, config.training.rollouts.rounds, config.training.rollouts.keep) == (8, 9, 9)
    assert config.features.options == {}  # those of another feature map would not fit
    (tmp_path / "round.yaml").write_text("extends: round.yaml\n")
    with pytest.raises(ConfigError, match="extends a preset that extends it"):
        load_config(tmp_path / "round.yaml")
    (tmp_path / "lost.yaml").write_text("extends: shape\n")
    with pytest.raises(ConfigError, match=r"cannot read .*shape|there is no preset"):
        load_config(tmp_path / "lost.yaml")


def test_a_section_that_is_null_differs_from_one_without_keys(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("extends: shapes\nlora:\n  # rank: 8\n")
    assert load_config(tmp_path / "empty.yaml").lora.rank == 16
    (tmp_path / "null.yaml").write_text("extends: shapes\nlora: null\n")
    assert load_config(tmp_path / "null.yaml").lora is None
    assert load_config("shapes", ["lora=null"]).lora is None
    assert load_config(tmp_path / "null.yaml", ["lora.rank=8"]).lora.rank == 8


def test_the_section_offline_is_absent_by_default_and_may_be_null(tmp_path):
    assert load_config("shapes").offline is None
    path = tmp_path / "mine.yaml"
    path.write_text(load_config("shapes").to_yaml())  # has `offline: null`, as the config.yaml of a run
    assert load_config(path).offline is None
    path.write_text("offline:\n  path: 007\n")
    assert load_config(path).offline.path == "007"
    config = load_config("shapes", ["offline.path=a.jsonl", "offline.neighbours=3"])
    assert (config.offline.path, config.offline.neighbours) == ("a.jsonl", 3)
    assert "offline.neighbours" in known_keys()
    with pytest.raises(ConfigError, match=r"no setting offline\.neighbors; did you mean offline\.neighbours\?"):
        load_config("shapes", ["offline.neighbors=3"])
