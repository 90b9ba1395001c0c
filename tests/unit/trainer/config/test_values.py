"""Text is text: what was typed for a text setting, on the command line or in a file, is its value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drpo.config import load_config
from drpo.errors import ConfigError

TEXTS = (
    "2024",
    "2026-06-01",
    "on",
    "007",
    "1e3",
    "~",
    "x #y",
    "a: b",
    "[final].jsonl",
    "@p",
    "%p",
    "{a}",
    "--x",
    "a=b",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_setting_takes_what_was_typed(text: str) -> None:
    config = load_config(
        "shapes", [f"{key}={text}" for key in ("prompts.path", "rewards.service", "evaluation.reward")]
    )
    assert (config.prompts.path, config.rewards.service, config.evaluation.reward) == (text,) * 3
    assert load_config("shapes", [f"run.folder={text}"]).run.folder == Path(text)


@pytest.mark.parametrize("text", ["2024", "2026-06-01", "on", "007", "1.0"])
def test_a_text_in_a_file_is_what_the_file_shows(text: str, tmp_path: Path) -> None:
    file = tmp_path / "preset.yaml"
    file.write_text(f"run: {{name: {text}}}\nprompts: {{tasks: [{text}, null, 'x']}}\nobjective:\n  name: {text}\n")
    with pytest.raises(ConfigError, match="tasks"):  # null is no text
        load_config(file)
    file.write_text(f"run: {{name: {text}}}\nprompts: {{tasks: [{text}, 'x']}}\nobjective:\n  name: {text}\n")
    config = load_config(file)
    assert (config.run.name, config.prompts.tasks, config.objective.name) == (text, (text, "x"), text)


def test_null_is_no_value_where_that_is_allowed_and_text_elsewhere() -> None:
    config = load_config("shapes", ["run.name=null", "features.path=null", "optimizer.max_grad_norm=null"])
    assert config.run.name is config.features.path is config.optimizer.max_grad_norm is None
    config = load_config("shapes", ["model.generator=null", "prompts.path=./null"])
    assert (config.model.generator, config.prompts.path) == ("null", "./null")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("prompts.tasks=a,b", ("a", "b")),
        ("prompts.tasks=on", ("on",)),
        ("prompts.tasks=[2024, 'a, b', on]", ("2024", "a, b", "on")),
        ("rewards.weights={on: 1, 2024: 0.5}", {"on": 1.0, "2024": 0.5}),
        ("rewards.weights.007=1e-1", {"007": 0.1}),
        ("training.steps=010", 10),
        ("training.max_seconds=1e2", 100.0),
        ("training.max_failures=-1", -1),
        ("training.pipeline=off", False),
        ("optimizer.betas=[0.8, 0.9]", (0.8, 0.9)),
        ("features.options.keys=[layer1_mean]", ["layer1_mean"]),
    ],
)
def test_other_settings_are_numbers_or_yaml(override: str, value: object) -> None:
    config = load_config("shapes", [override])
    section, name, *_ = override.partition("=")[0].split(".")
    found = getattr(getattr(config, section), name)
    assert (found["keys"] if name == "options" else found) == value


@pytest.mark.parametrize("text", ["1:30", "2026-06-01", "[1", "", "many", "inf", "nan", "1e999"])
def test_what_is_no_number_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.max_seconds.*it must be more than 0"):
        load_config("shapes", [f"training.max_seconds={text}"])


@pytest.mark.parametrize("seed", ["1e20", "18446744073709551615", "-1", "9" * 5000])
def test_a_seed_out_of_range_is_refused(seed: str) -> None:
    for key in ("run.seed", "evaluation.seed"):
        with pytest.raises(ConfigError, match=key.replace(".", r"\.")) as error:
            load_config("shapes", [f"{key}={seed}"])
        assert len(str(error.value)) < 300
        assert "9223372036854775807" in str(error.value) or "equal to 0" in str(error.value)
    assert load_config("shapes", ["run.seed=9223372036854775807"]).run.seed == 2**63 - 1


@pytest.mark.parametrize("key", ["training.groups_per_step", "evaluation.images_per_prompt", "evaluation.batch_size"])
def test_an_amount_that_no_machine_holds_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{re.escape(key)}.*less than or equal to 65536"):
        load_config("shapes", [f"{key}=1000000"])


def test_a_setting_that_stands_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "preset.yaml"
    for text, line, key in (
        ("training:\n  steps: 3\n  steps: 4\n", 3, "steps"),
        ("rewards:\n  weights: {a: 1,\n    a: 2}\n", 3, "a"),
        ("features: {options: {keys: [x], keys: [y]}}\n", 1, "keys"),
    ):
        file.write_text(text)
        with pytest.raises(
            ConfigError, match=rf"preset\.yaml:{line}: is not valid YAML: {key} is there twice; keep one"
        ):
            load_config(file)
    with pytest.raises(ConfigError, match=r"rewards\.weights: '.*' is not a YAML value: a is there twice"):
        load_config("shapes", ["rewards.weights={a: 1, a: 2}"])
    file.write_text("training: &mine {steps: 3}\nrewards: {weights: &all {a: 1}}\n")
    assert load_config(file).training.steps == 3


NUMBERS = {"010": 10, "1_000": 1000, "7.0": 7, "1:30": None, "yes": None, "true": None, "0x10": None}
"""What a file shows for training.steps, and what it means; None: it is refused."""


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_in_a_file_means_what_it_means_on_the_command_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "preset.yaml"
    file.write_text(f"training:\n  steps: {text}\n")
    for name, overrides in ((file, []), ("shapes", [f"training.steps={text}"])):
        if NUMBERS[text] is None:
            with pytest.raises(ConfigError, match=r"training\.steps"):
                load_config(name, overrides)
        else:
            assert load_config(name, overrides).training.steps == NUMBERS[text]


def test_keys_are_names_and_numbers_are_neither_true_nor_endless(tmp_path: Path) -> None:
    file = tmp_path / "preset.yaml"
    file.write_text("rewards: {weights: {on: 1, 007: 2e-1}}\noptimizer: {lr: 1e-3}\ntraining: {pipeline: no}\n")
    config = load_config(file)
    assert (config.rewards.weights, config.optimizer.lr) == ({"on": 1.0, "007": 0.2}, 1e-3)
    assert config.training.pipeline is False
    for text, message in (
        ("on: 3", "there is no setting on"),
        ("rewards: {weights: {a: true}}", "rewards.weights: true and false are no numbers"),
        ("optimizer: {betas: [true, 0.9]}", "optimizer.betas: true and false are no numbers"),
        ("training: {steps: 1" + "0" * 30 + "}", "training.steps: an integer of 100 bits is too large"),
        ("training: {resources_per_worker: {big: -1}}", "resources_per_worker.big = -1: input should be greater"),
        ("training.steps: 3", "there is no setting training.steps; in a file, write steps below training:"),
        ("lora: {target_modules: [[to_q]]}", "lora.target_modules.0 = ['to_q']: input should be a valid string"),
    ):
        file.write_text(f"{text}\n")
        with pytest.raises(ConfigError) as error:
            load_config(file)
        assert message in str(error.value)
        assert len(str(error.value).splitlines()) == 1
