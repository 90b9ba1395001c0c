"""`drpo preferences` and `drpo shapes preferences`, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.preferences import write_table
from support.tiny.sd_turbo import write_tiny_pipeline

from drpo.cli import app


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRPO_SITE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The exit status of `drpo` with these arguments, and what it printed."""
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return ended.value.code, printed.out + printed.err


def test_drawn_preferences_can_be_shown_and_encoded(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shapes", "preferences", "--out", "drawn", "--prompts-per-task", "1", "--pairs", "1"], capsys)[0] == 0
    overrides = ["shapes-offline", "--offline.path", "drawn/preferences.jsonl"]
    status, printed = run(["preferences", "show", *overrides, "--count", "2"], capsys)
    assert (status, len(printed.splitlines())) == (0, 3)
    assert printed.startswith("preferences for 6 different prompts\n")

    write_tiny_pipeline(home / "tiny")
    overrides += ["--model.generator", "tiny", "--model.device", "cpu", "--offline.cache", "cache"]
    for _ in range(2):  # the second time nothing is left to do
        status, printed = run(["preferences", "encode", *overrides], capsys)
        assert (status, f"encoded images for 6 prompts are in {home / 'cache'}" in printed) == (0, True)
    assert len(list((home / "cache").glob("*/blocks/*.safetensors"))) == 1


def test_the_sources_are_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = run(["preferences", "list"], capsys)
    assert status == 0
    assert "prompt, chosen and rejected" in printed
    assert "yuvalkirstain/pickapic_v2" in printed


def test_mistakes_are_told_with_exit_status_2(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_table(home / "set")
    table.write_text(table.read_text() + "[broken]\n")
    for command in ("show", "encode"):
        status, printed = run(["preferences", command, "shapes-offline", "--offline.path", str(table)], capsys)
        assert (status, printed.splitlines()) == (
            2,
            [f"error: {table}:5: is not JSON: Expecting value: line 1 column 2 (char 1); each line is one object"],
        )
        status, printed = run(["preferences", command, "shapes"], capsys)
        assert (status, printed.strip()) == (2, "error: shapes has no section offline, which names the preferences")
        assert run(["preferences", command, "shapes-offline", "--offline.pth", "x"], capsys)[0] == 2
    mine = home / "mine.yaml"
    mine.write_text(yaml.safe_dump({"offline": {"source": "flie"}}))
    status, printed = run(["preferences", "show", str(mine)], capsys)
    assert status == 2
    assert "there is no source of preferences 'flie'; choose from file, pickapic_v2" in printed
    assert run(["train", "--preset", "shapes-offline", "--offline.path", str(table)], capsys)[0] == 2
    assert not (home / "runs").exists()
