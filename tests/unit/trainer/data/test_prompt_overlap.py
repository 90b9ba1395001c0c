"""Evaluation prompts that are also trained on: found before the start, and refused unless allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drpo.checks import Plan, check_config
from drpo.checks import prompts as prompt_checks
from drpo.config import Config, OfflineConfig, load_config, parse_config
from drpo.data.prompts import PromptRecord, load_prompts
from drpo.data.prompts.overlap import find_overlap
from drpo.data.training import load_held_out_prompts, refuse_overlap
from drpo.errors import ConfigError
from drpo.shapes.prompts import prompts


def config(tmp_path: Path, train: str, evaluation: str | None, **settings: Any) -> Config:
    (tmp_path / "train.txt").write_text(train)
    values: dict[str, Any] = {"rewards": {"service": None, "address": "serve://ranking"}}
    values |= {"prompts": {"source": "file", "path": str(tmp_path / "train.txt"), **settings}}
    if evaluation is not None:
        (tmp_path / "test.txt").write_text(evaluation)
        values["evaluation"] = {"path": str(tmp_path / "test.txt")}
    return parse_config(values)


def check_prompts(config: Config) -> list[str]:
    """What is wrong with the prompts of a config."""
    findings = dict.fromkeys(prompt_checks.check_prompts(Plan(config)))
    return [finding.found for finding in findings if finding.state == "wrong"]


def test_case_and_white_space_make_no_difference() -> None:
    train = [PromptRecord(" A Cat"), PromptRecord("a STRASSE"), PromptRecord("a dog.")]
    evaluation = [PromptRecord("a cat "), PromptRecord("A cat"), PromptRecord("a straße"), PromptRecord("a dog")]
    assert find_overlap(train, evaluation) == ["A cat", "a straße"]


def test_the_splits_of_the_embedded_world_do_not_overlap() -> None:
    splits = {
        split: [PromptRecord(each.prompt) for each in prompts(split)]  # type: ignore[arg-type]
        for split in ("train", "validation", "test")
    }
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert find_overlap(splits[one], splits[other]) == []


def test_a_run_that_trains_on_its_evaluation_is_refused_unless_allowed(tmp_path: Path) -> None:
    train, evaluation = "a cat\na dog\na cow\n", "A CAT\na bird\n a cow\n"
    with pytest.raises(
        ConfigError, match=r"2 of the 3 evaluation prompts are also training prompts \('A CAT', ' a cow'\)"
    ):
        check_config(config(tmp_path, train, evaluation))
    assert check_prompts(config(tmp_path, train, evaluation, allow_overlap=True)) == []
    assert check_prompts(config(tmp_path, train, "a bird\n")) == []
    # without a file of its own, the evaluation has the training prompts
    with pytest.raises(ConfigError, match="3 of the 3"):
        check_config(config(tmp_path, train, None))
    alone = config(tmp_path, train, None)
    alone.evaluation.enabled = False
    assert check_prompts(alone) == []


def test_problems_of_both_sides_are_told_together(tmp_path: Path) -> None:
    found = check_prompts(config(tmp_path, "a\0\n", "b\0\n"))
    assert [line.removeprefix(f"{tmp_path}/") for line in found] == [
        'train.txt:1: "prompt" holds a NUL character',
        'test.txt:1: "prompt" holds a NUL character',
    ]
    assert len(check_prompts(config(tmp_path, "a\0\n", None))) == 1
    (missing,) = check_prompts(load_config("shapes", ["evaluation.split=tets"]))
    assert missing.startswith("evaluation.split: there is no split 'tets'")


def test_the_evaluation_may_have_another_source() -> None:
    chosen = load_config(
        "shapes",
        ["prompts.source=geneval_train", "prompts.tasks=[colors]", "evaluation.source=geneval"],
    )
    assert check_prompts(chosen) == []
    settings = chosen.evaluation_prompts()
    assert (settings.source, settings.split, settings.tasks) == ("geneval", "test", None)
    assert len(load_prompts(settings)) == 553
    same = load_config("shapes", ["prompts.tasks=[colors]", "evaluation.split=validation"]).evaluation_prompts()
    assert (same.source, same.split, same.tasks) == ("shapes", "validation", ("colors",))
    (path,) = check_prompts(load_config("shapes", ["evaluation.path=x.jsonl"]))
    assert path.startswith("evaluation.path is 'x.jsonl', but the source shapes reads no file")


def test_a_data_set_of_the_hub_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="cannot load the split 'train' of no-such-org/name from the hub"):
        check_config(load_config("shapes", ["prompts.source=hub", "prompts.path=no-such-org/name"]))


def test_preferences_on_the_hub_are_compared_when_the_workers_have_read_them(tmp_path: Path) -> None:
    """Before the start only the evaluation prompts are known; the workers get them."""
    chosen = config(tmp_path, "a bird\n", "A CAT\na bird\n")
    assert load_held_out_prompts(chosen) == []  # the check before the start has both
    hub = chosen.model_copy(update={"offline": OfflineConfig(source="pickapic_v2")})
    assert load_held_out_prompts(hub) == ["A CAT", "a bird"]
    training = [PromptRecord("a cat"), PromptRecord("a dog")]
    with pytest.raises(ConfigError, match=r"1 of the 2 evaluation prompts are also training prompts \('A CAT'\)"):
        refuse_overlap(training, load_held_out_prompts(hub))
    refuse_overlap(training[1:], load_held_out_prompts(hub))
    for section, setting in (("prompts", "allow_overlap"), ("evaluation", "enabled")):
        allowed = hub.model_copy(deep=True)
        setattr(getattr(allowed, section), setting, section == "prompts")
        assert load_held_out_prompts(allowed) == []
