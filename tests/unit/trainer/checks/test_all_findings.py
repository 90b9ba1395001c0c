"""A setting that is wrong does not hide what else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.checks import Plan, examine, make_paths_absolute
from drpo.checks.outputs import check_outputs
from drpo.config import load_config
from drpo.config.loading import override, read_preset, salvage_config


def find_wrong(*overrides: str) -> list[str]:
    values = read_preset("shapes")
    problems = override(values, overrides)
    config, others = salvage_config(values)
    findings = examine(Plan(make_paths_absolute(config)), [*problems, *others])
    return [finding.named for finding in findings if finding.state == "wrong"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.num_workers=99", "training.groups_per_step=4"),
        ("training.num_workers=99",),
        ("training.groups_per_step=0", "training.num_workers=8"),
        ("training.selection=rollouts", "rewards.normalize=std"),
        ("training.keep_best=mean", "evaluation.every=0"),
        ("training.keep_best=mean", "evaluation.every=-1"),
        ("training.steps=0", "run.seed=-1", "model.dtype=float17"),
    ],
)
def test_the_rest_is_told_too(overrides: tuple[str, ...], tmp_path: Path) -> None:
    wrong = find_wrong(*overrides, f"model.generator={tmp_path}/none", "run.folder=/dev/null/x")
    assert any("/none" in line for line in wrong), wrong
    assert any("run.folder" in line for line in wrong), wrong
    assert len(wrong) == 2 + (3 if len(overrides) == 3 else 1), wrong  # and nothing that follows from a default


def test_checkpoints_that_cannot_be_written_are_told_before_a_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to("/proc")  # nobody can write there, not even root
    plan = Plan(make_paths_absolute(load_config("shapes")), run_dir=tmp_path)
    (wrong,) = [finding for finding in check_outputs(plan) if finding.state == "wrong"]
    assert f"no file can be made in {tmp_path}/checkpoints" in wrong.found
