"""The folder of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drpo.cli import app
from drpo.config import load_config, parse_config
from drpo.errors import ConfigError, StorageError
from drpo.training.files import replace_folder, write_text
from drpo.training.run_folder import create_run, find_run, read_config


def test_a_run_keeps_its_config_and_its_name(tmp_path):
    config = load_config("shapes", [f"run.folder={tmp_path}"])
    first, second = create_run(config), create_run(config)
    assert first != second
    assert read_config(first) == config
    assert find_run(first / "checkpoints" / "step-000002" / "adapter") == find_run(first) == first
    assert find_run(tmp_path) is None
    named = parse_config({"run": {"folder": str(tmp_path), "name": "mine"}})
    create_run(named)
    with pytest.raises(ConfigError, match="--resume"):
        create_run(named)


@pytest.mark.parametrize(
    "place", [".", "adapter", "adapter-ema", "checkpoints/step-000002", "checkpoints/step-2/adapter"]
)
def test_a_run_is_found_from_its_own_places_only(tmp_path, place):
    run = create_run(load_config("shapes", [f"run.folder={tmp_path}"]))
    folder = run / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.safetensors").touch()
    assert find_run(folder) == find_run(folder / "a.safetensors") == run
    for other in ("styles", "styles/adapter", "samples/adapter"):
        assert find_run(run / other) is None


@pytest.mark.parametrize(
    "text", ["", "a: b: c", "\tx: 1", "[1, 2]", "model: {name: theirs}\nlora: {rank: 4}\n", "\xff", None]
)
def test_the_config_of_somebody_else_is_not_that_of_a_run(tmp_path, text):
    if text is None:
        (tmp_path / "config.yaml").mkdir()
    else:
        (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    for place in (".", "adapter", "checkpoints/step-1/adapter"):
        assert find_run(tmp_path / place) is None


def test_a_device_a_pipe_and_a_link_stay_what_they_are(tmp_path):
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    link.symlink_to(target)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
    reader, writer = os.pipe()
    write_text(Path(f"/dev/fd/{writer}"), "as to /dev/stdout")
    assert os.read(reader, 100) == b"as to /dev/stdout"
    os.close(reader)
    os.close(writer)
    log = tmp_path / "log"
    with log.open("a") as file:
        print("before", file=file, flush=True)
        write_text(Path(f"/dev/fd/{file.fileno()}"), "page\n")
        print("after", file=file, flush=True)
    assert log.read_text() == "before\npage\nafter\n"
    write_text(link, "replaced")
    assert (link.is_symlink(), target.read_text()) == (True, "replaced")
    write_text(Path("/dev/null"), "nothing")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(StorageError, match="/dev/full: No space left on device"):
        write_text(Path("/dev/full"), "nothing")
    with pytest.raises(StorageError, match="is there already, and is no folder"), replace_folder(pipe):
        pass


def test_runs_whose_settings_cannot_be_read_are_named_before_a_comparison(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in (("a", "run: &a {name: *a}"), ("b", "\0\0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        app(["compare", "a", "b"])
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert len(lines) == 2
    assert "*a contains itself" in lines[0]
    assert "b/config.yaml" in lines[1]
    assert not (tmp_path / "compare.html").exists()
