"""What commands print may have no reader any more, and no place: they go on."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from rich.table import Table
from rich.text import Text

from drpo_rewards.screen import make_console

PRINTS = """
import sys
from rich.table import Table
from drpo_rewards.screen import make_console
console, errors = make_console("stdout"), make_console("stderr")
sys.stdin.readline()  # until the reader is gone
with console.status("busy"):
    for _ in range(3):
        table = Table()
        table.add_row("a word")
        console.print(table)
errors.print("whole")
"""


@pytest.mark.parametrize("gone", ["pipe", "terminal", "full disk", "closed", "closed with stderr"])
def test_a_command_goes_on_when_nobody_reads(gone: str) -> None:
    command = [sys.executable, "-c", PRINTS]
    read, write = pty.openpty() if gone == "terminal" else os.pipe()
    if gone == "full disk":
        os.close(write)
        write = os.open("/dev/full", os.O_WRONLY)
    if gone.startswith("closed"):
        closed = ">&- 2>&-" if gone.endswith("stderr") else ">&-"
        command = ["bash", "-c", f'"$0" "$@" {closed}', *command]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    os.close(read)
    _, errors = process.communicate("go\n", timeout=60)
    assert errors.splitlines()[-1:] == ([] if gone.endswith("stderr") else ["whole"])
    assert process.returncode == 0


def test_a_table_without_columns_has_the_usual_ones() -> None:
    environment = {**os.environ, "COLUMNS": "0"}
    printed = subprocess.run(
        [sys.executable, "-c", PRINTS], input="go\n", env=environment, capture_output=True, text=True
    )
    assert printed.stdout.count("a word") == 3


def test_a_text_from_elsewhere_does_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console("stdout", force_terminal=True, color_system="standard")
    elsewhere = "\x1b[31mred\x07\x9b\ta [b]"
    table = Table("[bold]name")
    table.add_row(Text(elsewhere), Text("\x1b]0;title"))
    console.print(Text(elsewhere, "green"), elsewhere, table)
    with console.status("busy"):
        pass
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out.replace("\x1b[31m", "<DRIVEN>"))
    assert "\\x1b[31mred\\x9b" in shown  # rich leaves out the bell
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    assert "<DRIVEN>" not in shown
