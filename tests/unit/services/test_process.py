"""Where a command stands, and what hides its packages, is told at once by both command lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [["-m", "drpo", "runs"], ["-m", "drpo_rewards.cli", "doctor"], ["-m", "drpo_rewards.cli", "serve"]]
NAMES = ["ray.py", "datasets.py", "torch/__init__.py"]


def run(command: list[str], folder: Path, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    started = ["bash", "-c", f'{shell} "$0" "$@"', sys.executable, *command]
    return subprocess.run(
        started, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize("command", COMMANDS[:2], ids=" ".join)
def test_a_folder_that_was_removed(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    ended = run(command, tmp_path / "gone", "rmdir ../gone;")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(
        "the current folder has been removed; go to one that is there with cd"
    )


@pytest.mark.parametrize(("command", "name"), [*zip(COMMANDS, NAMES, strict=True)])
def test_a_file_with_the_name_of_a_package(command: list[str], name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    paths = os.pathsep.join([str(tmp_path / "mine"), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = run(command, tmp_path, PYTHONPATH=paths)
    assert ended.returncode == 2
    assert f"{path} hides the installed package " in ended.stderr


def test_a_folder_with_the_name_of_a_package_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    ended = run(["-c", "from drpo_rewards.process import check_process; check_process()"], tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_file_beside_the_config_of_a_service(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("")
    (tmp_path / "my.yaml").write_text("rewards: {geneval: {type: geneval}}")
    (tmp_path / "elsewhere").mkdir()
    ended = run(["-m", "drpo_rewards.cli", "serve", "../my.yaml"], tmp_path / "elsewhere")
    assert ended.returncode == 2
    assert f"{tmp_path / 'ray.py'} hides the installed package ray" in ended.stderr
