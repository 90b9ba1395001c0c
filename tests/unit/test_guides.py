"""Every fenced block of the guides: its syntax, and that the options, settings, files and names in it exist.

`tests/integration/test_commands_of_guides.py` runs the blocks that can run.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
import typer
import yaml
from ray.scripts.scripts import cli as ray_cli
from ray.serve.scripts import cli as serve_cli
from support.guides import ROOT, Block, read_blocks, split_commands

from drpo.cli import app as drpo_app
from drpo.config import load_config
from drpo.shapes.cli import app as shapes_app
from drpo_rewards.cli import app as rewards_app

NOT_INSTALLED = ("unirl",)  # other projects, whose names the guides may use without a check

GROUPS: dict[str, Any] = {  # typer has its own copy of click's classes
    "drpo": typer.main.get_command(drpo_app),
    "drpo-rewards": typer.main.get_command(rewards_app),
    "ray": ray_cli,
    "serve": serve_cli,
}


def check_command(words: Sequence[str]) -> None:
    """Parses a command as its program would, and looks for the files and targets that it names."""
    program, *arguments = [words[0].removeprefix(".venv/bin/"), *words[1:]]
    if program == "python" and arguments[:2] == ["-m", "drpo"]:
        program, arguments = "drpo", arguments[2:]
    if program == "make":
        targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
        assert set(arguments) <= targets
    elif program == "deploy/jobs/shapes.sh":
        check_click("drpo", ["train", "--preset", "shapes", *arguments])
    elif program == "python" and arguments[0].endswith(".py"):
        source = (ROOT / arguments[0]).read_text()
        assert all(word.strip("-").replace("-", "_") in source for word in arguments if word.startswith("--"))
    elif program in GROUPS:
        check_click(program, arguments)
    for word in [program, *arguments]:
        if word.startswith(("deploy/", "protos/", "trainer/", "services/", "tests/")):
            assert (ROOT / word).exists(), word


def check_click(program: str, arguments: Sequence[str]) -> None:
    command, rest, path = GROUPS[program], list(arguments), program
    while hasattr(command, "commands"):
        assert rest[0] in command.commands, f"{path} has no command {rest[0]}"
        path, command, rest = f"{path} {rest[0]}", command.commands[rest[0]], rest[1:]
        if path == "drpo shapes":
            command = typer.main.get_command(shapes_app)
    try:
        context = command.make_context(path, rest)
    except Exception as error:
        pytest.fail(f"{path} {' '.join(rest)}: {error}")
    if program == "drpo":
        settings = context.args
        if settings:
            load_config(context.params["preset"] or "shapes", settings)
    elif path == "ray job submit":
        check_command(context.params["entrypoint"])


def test_the_guides_have_blocks_of_each_language() -> None:
    blocks = read_blocks()
    assert len({block.name for block in blocks}) == len(blocks) > 30
    assert {block.language for block in blocks} == {"", "bash", "python", "yaml"}
    assert all(block.no_run is None or block.language in ("bash", "python") for block in blocks)
    fences = sum(
        text.count("\n```") // 2 for text in (_text(guide) for guide in {one.name.split(":")[0] for one in blocks})
    )
    assert fences == len(blocks)  # none was overlooked


def _text(guide: str) -> str:
    return (ROOT / guide).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", read_blocks("bash"), ids=str)
def test_commands_in_the_guides_exist(block: Block) -> None:
    syntax = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=30)
    assert (syntax.returncode, syntax.stderr) == (0, "")
    commands = list(split_commands(block.text))
    assert commands
    for words in commands:
        check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "drpo trian --preset shapes",
        "drpo train --preset shapes --training.step 5",
        "drpo sample --adaptor a --prompt p",
        ".venv/bin/drpo-rewards serve my.yaml --prot 8000",
        "make tset",
        "ray job submit --adress http://127.0.0.1:8265 -- python -m drpo train",
        "ray job submit --address http://127.0.0.1:8265 --working-dir . -- python -m drpo train --run.nam mine",
        "serve deploy deploy/cluster/nothing.yaml",
        "A=1 deploy/jobs/shapes.sh --lora.rang 3 # a comment",
    ],
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    [words] = split_commands(line)
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError)):
        check_command(words)


@pytest.mark.parametrize("block", read_blocks("python"), ids=str)
def test_names_in_the_guides_python_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text, block.name)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in NOT_INSTALLED:
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")


@pytest.mark.parametrize("block", read_blocks("yaml"), ids=str)
def test_yaml_in_the_guides_is_yaml(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.text), dict)
