"""The folder for Ray's sockets and logs, in surroundings that people have."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from drpo_rewards.cluster.ray_folder import find_ray_folder
from drpo_rewards.errors import ConfigError


@pytest.mark.parametrize("name", ["long" * 30, "Müller", "missing/folder"])
def test_a_temporary_folder_that_ray_cannot_use_is_passed_over(tmp_path: Path, name: str) -> None:
    if "missing" not in name:
        (tmp_path / name).mkdir()
    assert find_ray_folder({"TMPDIR": str(tmp_path / name)}) == Path("/tmp")


def test_the_temporary_folder_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_ray_folder({"TMPDIR": "/var/tmp"}) == Path("/var/tmp")
    assert find_ray_folder({"TMPDIR": ""}) == find_ray_folder({}) == Path("/tmp")
    monkeypatch.chdir("/var")
    assert find_ray_folder({"TMPDIR": "tmp"}) == Path("/var/tmp")


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("/etc/hostname", "is not a folder"),
        ("/etc/hostname/ray", "is not a folder"),
        ("/proc", "cannot be written"),
        ("/proc/none", "cannot be written"),
        ("/tmp/" + "long" * 30, "is too long"),
    ],
)
def test_a_folder_that_was_chosen_is_used_or_refused(folder: str, reason: str) -> None:
    """It is a wish, so no other folder takes its place."""
    with pytest.raises(ConfigError, match=rf"{folder} {reason}.*\$RAY_TMPDIR"):
        find_ray_folder({"RAY_TMPDIR": folder})


def test_a_folder_that_was_chosen_may_be_missing() -> None:
    """Scripts of a scheduler name one by their job; Ray makes it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        missing = f"{short}/of/job-7"
        assert find_ray_folder({"RAY_TMPDIR": missing}) == Path(missing)
        assert not Path(missing).exists()
