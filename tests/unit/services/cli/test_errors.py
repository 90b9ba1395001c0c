"""How commands end: a user's mistake, a fault of ours, and terminals that cannot show every letter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from drpo_rewards.cli import app

# A command whose reward has a mistake that this package does not expect.
FAULT = "import yaml; yaml.load = lambda *_: 1 / 0; from drpo_rewards.cli import app; app()"
LOUD = """
import ctypes
import os

from drpo_rewards.rewards.base import Score

print("importing")

class Loud:
    version = "1"

    def __init__(self):
        print("loading")
        ctypes.CDLL(None).puts(b"from a library")
        os.system("echo from a process")

    def score(self, items):
        print("scoring")
        return [Score(1.0) for _ in items]
"""
OPTIONS = ["score", "geneval", "--prompt", "p", "--option", "score=strict", "a.png"]


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["models", "--url", "localhost:8000"], 2, "did you mean http://localhost:8000?"),
        (["rank", "--url", "http://h/v1", "--prompt", "p", "a.png", "b.png"], 2, "it ends before /v1"),
        (["bench", "--url", "h:1"], 2, "did you mean http://h:1?"),
        (["models", "--api-key", "schlüssel"], 2, "the API key: character 5 is not ASCII"),
        (["score", "geneval", "--prompt", "p", "none [final].png"], 2, "cannot read none [final].png"),
        (["compare", "geneval", "--prompt", "p", "none.png", "none.png"], 2, "cannot read none.png"),
        (["bench", "--reward", "beauty"], 2, "no reward 'beauty'"),
        (["download", "beauty"], 2, "no reward 'beauty'"),
        (["download", "none.yaml"], 2, "no service config"),
        (["upgrade", "none.yaml", "r", "--address", "127.0.0.1:9"], 1, "no Ray can be reached"),
        (["models", "--url", "http://127.0.0.1:9"], 1, "cannot reach http://127.0.0.1:9"),
    ],
)
def test_each_command_ends_with_one_line(arguments: list[str], status: int, line: str) -> None:
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == status, answer.output
    (printed,) = [printed for printed in answer.stderr.splitlines() if printed.startswith("error")]
    assert line in printed
    assert "Traceback" not in answer.output


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (["--metadata", "/dev/zero"], "cannot read /dev/zero: it has more than 10 MB"),
        (["--metadata", '{"a": ' + "[" * 50_000], "it is nested deeper than 16 levels"),
        (["--metadata", "[1]"], "[1] is not a JSON object"),
        (["--metadata", "none.json"], "cannot read none.json: No such file or directory"),
        (["--metadata", ""], "it is empty; give a JSON object, or a file with one"),
        (["--reward", "=1"], "'=1' names no reward; write NAME or NAME=WEIGHT"),
        (["--reward", "a=1", "--reward", "a"], "a is there twice; keep one"),
    ],
)
def test_an_option_without_a_meaning_is_named(option: list[str], line: str) -> None:
    answer = CliRunner().invoke(app, ["rank", "--prompt", "p", *option, "a.png", "b.png"], prog_name="drpo-rewards")
    assert answer.exit_code == 2, answer.output
    help_is = "`drpo-rewards rank --help` tells more"
    assert answer.stderr == f"error (usage): Invalid value for {option[0]}: {line}; {help_is}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["rank", "a.png"], "Missing option '--prompt'; `drpo-rewards rank --help` tells more"),
        (["rnak"], "No such command 'rnak'"),
        (["bench", "--side", "x"], "Invalid value for '--side'"),
        (
            ["bench", "--clients", "99999999999"],
            "Invalid value for '--clients': Input should be less than or equal to 10000",
        ),
        (["bench", "--reward", "sharpness", "--batch-size", "9" * 20], "Invalid value for '--batch-size'"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line(arguments: list[str], line: str) -> None:
    answer = CliRunner().invoke(app, arguments, prog_name="drpo-rewards")
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error (usage): {line}")
    assert answer.stderr.count("\n") == 1


def test_only_results_are_on_stdout(tmp_path: Path) -> None:
    """Rewards of others print while they load and score."""
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "loud.yaml").write_text("rewards: {a: {type: 'loud:Loud'}}\nhttp_port: 0\ngrpc_port: 0\n")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    for command in (
        ["score", "loud:Loud", "--prompt", "p", "a.png", "b.png"],
        ["compare", "loud:Loud", "--prompt", "p", "a.png", "b.png"],
        ["bench", "--reward", "loud:Loud", "--seconds", "0.1", "--batch-size", "1"],
        ["doctor", "loud.yaml"],
    ):
        answer = subprocess.run(
            [sys.executable, "-m", "drpo_rewards", *command, "--json"],
            cwd=tmp_path, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)
        assert "importing" in answer.stderr
        for words in ("loading", "scoring", "from a library", "from a process"):
            assert (words in answer.stderr) == (command[0] != "doctor")


def test_the_version() -> None:
    answer = CliRunner().invoke(app, ["--version"])
    assert (answer.exit_code, answer.output) == (0, f"drpo-rewards {metadata.version('drpo')}\n")


@pytest.mark.parametrize("place", ["before", "after", "absent"])
def test_a_fault_of_ours_says_so_and_debug_prints_the_traceback(place: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    arguments = {"before": ["--debug", *OPTIONS], "after": [*OPTIONS, "--debug"], "absent": OPTIONS}[place]
    answer = subprocess.run(
        [sys.executable, "-c", FAULT, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert answer.returncode == 1
    assert "this is a fault of drpo-rewards: ZeroDivisionError: division by zero" in answer.stderr
    assert ("Traceback (most recent call last)" in answer.stderr) == (place != "absent")
    assert ("--debug prints the traceback" in answer.stderr) == (place == "absent")


def test_a_terminal_without_utf_8_ends_no_command(tmp_path: Path) -> None:
    path = tmp_path / "größe-図.yaml"
    path.write_text("rewards: {größe: {type: x:Y, batch_size: 0}}", encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    answer = subprocess.run(
        [sys.executable, "-m", "drpo_rewards", "doctor", str(path)],
        env=os.environ | plain | {"COLUMNS": "300"}, capture_output=True, timeout=100,
    )  # fmt: skip
    assert answer.returncode == 2, answer.stderr
    assert rb"gr\xf6\xdfe-\u56f3.yaml:1: rewards.gr\xf6\xdfe.batch_size" in answer.stdout


@pytest.mark.parametrize("verb", ["serve", "doctor", "rank"])
def test_the_help_names_debug_and_serve_the_logs(verb: str) -> None:
    assert "--debug" in CliRunner().invoke(app, ["--help"]).stdout
    text = CliRunner().invoke(app, [verb, "--help"]).stdout
    assert verb != "serve" or ("logs: FOLDER" in text and "session_latest" in text)
