"""The check before an offline run: its preferences are read, and rewards only if they are needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from support.preferences import write_table

from drpo.checks import Plan, examine, make_paths_absolute
from drpo.config import load_config
from drpo.method.objectives import OBJECTIVES
from drpo.method.objectives.base import Needs
from drpo_rewards.findings import Finding


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("checks") / "set")


def find(table: Path | str, *overrides: str, **fields: Any) -> list[Finding]:
    settings = [f"offline.path={table}", "evaluation.enabled=false", *overrides]
    return examine(Plan(make_paths_absolute(load_config("shapes-offline", settings)), **fields))


def wrong(findings: list[Finding]) -> list[str]:
    return [finding.named for finding in findings if finding.state == "wrong"]


def test_a_good_set_is_counted_and_no_service_is_looked_for(table: Path, tmp_path: Path) -> None:
    findings = find(table, "rewards.service=/no/such.yaml", f"run.folder={tmp_path}/runs")
    assert wrong(findings) == []
    assert ("prompts", "offline", "4 prompts") in [(one.check, one.about, one.found) for one in findings]
    assert not any(one.check == "rewards" for one in findings)
    assert not (tmp_path / "runs").exists()  # a check writes nothing


def test_an_evaluation_needs_the_service(table: Path) -> None:
    for findings in (
        find(table, "rewards.service=/no/such.yaml", "evaluation.enabled=true"),
        find(table, "rewards.service=/no/such.yaml", verb="evaluate"),
    ):
        assert any(named.startswith("rewards.service: ") for named in wrong(findings))


def test_every_wrong_row_is_told_before_the_start(table: Path) -> None:
    spoilt = table.with_name("spoilt.jsonl")
    spoilt.write_text("x\n" + table.read_text() + '{"prompt": "a", "chosen": "b.png", "rejected": "c.png"}\n')
    first, second = wrong(find(spoilt))
    assert f"{spoilt}:1: is not JSON" in first
    assert f"{spoilt}:6: \"chosen\": there is no file 'b.png'" in second


def test_the_latents_must_fit_on_the_disk(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set of the fixture is small; the public one, which is not read, takes 63 GB for SD-Turbo, 1 GB for shapes."""
    small = find(table, f"run.folder={tmp_path}")
    assert [one.state for one in small if one.about == "offline.cache"] == ["ok"]
    public = ("offline.source=pickapic_v2", f"run.folder={tmp_path}")
    [fits] = [one for one in find("null", *public) if one.about == "offline.cache"]
    assert fits.found.startswith("up to 1.0 GB needed for the latents of 1918080 images")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500_000_000))
    [named] = wrong(find("null", *public))
    assert named.startswith("offline.cache: up to 1.0 GB needed")
    assert "0.5 GB free" in named
    (tmp_path / ".latents").mkdir()
    with (tmp_path / ".latents" / "part.safetensors").open("wb") as file:
        file.truncate(600_000_000)  # what is encoded already is not needed again
    assert wrong(find("null", *public)) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("offline.source=flie", "there is no source of preferences 'flie'; choose from file, pickapic_v2"),
        ("offline.path=/no/set.jsonl", "offline.path: there is no file /no/set.jsonl"),
        ("offline.path=null", "offline.path is not set"),
        ("offline.cache=/etc/hostname/cache", "offline.cache: /etc/hostname is a file, so "),
    ],
)
def test_wrong_settings_are_named(table: Path, override: str, message: str) -> None:
    [named] = wrong(find(table, override))
    assert message in named


def test_evaluation_prompts_that_are_trained_on_are_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("a red circle\na new prompt\n")
    overrides = ("evaluation.enabled=true", "evaluation.source=file", f"evaluation.path={tmp_path}/test.txt")
    assert any(
        "1 of the 2 evaluation prompts are also training prompts" in one for one in wrong(find(table, *overrides))
    )


class NeedsRewards:
    """An objective that only rewards can train."""

    class Settings(BaseModel):
        """It has none."""

    settings_class: ClassVar[type[BaseModel]] = Settings
    needs = Needs()

    def __init__(self, settings: Any) -> None:
        """Takes no settings."""


def test_an_objective_that_needs_rewards_is_refused(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "rewarded", f"{__name__}:NeedsRewards")
    config = load_config("shapes-offline", [f"offline.path={table}"])
    config.objective = type(config.objective)(name="rewarded")
    [named] = wrong(examine(Plan(make_paths_absolute(config))))
    assert "rewarded needs rewards and cannot be trained on given preferences" in named
