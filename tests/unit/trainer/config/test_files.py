"""Files with settings that cannot be used: presets, the site's file, and the config.yaml of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drpo.config import load_config
from drpo.errors import ConfigError
from drpo.training.run_folder import create_run, read_config

BROKEN = {
    "tab": (b"run:\n\tname: x\n", ":2: is not valid YAML"),
    "latin-1": (b"# ok\nrun: {name: caf\xe9}\n", ":2: is not UTF-8 text"),
    "utf-16": ("run: {seed: 3}".encode("utf-16"), ":1: is not UTF-8 text"),
    "null character": (b"run:\n  name: a\x00b\n", ":2: YAML does not allow the character '\\x00'"),
    "list": (b"- run\n", "holds a list, not sections such as `run:`"),
    "text": (b"run", "holds a text, not sections such as `run:`"),
    "two documents": (b"run: {}\n---\nrun: {}\n", ":2: is not valid YAML"),
    "code": (b"run: !!python/object/apply:os.getcwd []\n", ":1: is not valid YAML"),
    "date": (
        b"training: {steps: !!timestamp 2026-13-01}\n",
        ":1: is not valid YAML: tag:yaml.org,2002:timestamp cannot",
    ),
    "long number": (b"training: {steps: " + b"9" * 5000 + b"}\n", "cannot be read as YAML: Exceeds the limit"),
    "key that is a list": (b"training: {}\n? [a]\n: 3\n", ":2: is not valid YAML: a key must be a name"),
    "nested too deep": (b"run: " + b"[" * 3000, "cannot be read as YAML"),
    "open bracket": (b"run: {name: x\n", ":2: is not valid YAML"),
}


def as_preset(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_config(file)


def as_site(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRPO_SITE", str(file))
    load_config("shapes")


def as_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = create_run(load_config("shapes", [f"run.folder={file.parent}"]))
    (run_dir / "config.yaml").unlink()
    if file.is_dir():
        (run_dir / "config.yaml").mkdir()
    else:
        (run_dir / "config.yaml").write_bytes(file.read_bytes())
    read_config(run_dir)


Use = Callable[[Path, pytest.MonkeyPatch], None]
USES = pytest.mark.parametrize("use", [as_preset, as_site, as_run])


@USES
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(
    use: Use, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = BROKEN[kind]
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        use(file, monkeypatch)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert str(tmp_path) in str(error.value)


@USES
def test_a_byte_order_mark_and_windows_line_ends_are_taken(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    text = "\ufeffrun:\r\n  seed: 3\r\ntraining:\r\n"  # and a section without keys
    if use is as_run:  # whose file has all sections
        text += "preset: shapes\r\nlora: {}\r\nobjective: {}\r\nrewards: {}\r\n"
    file.write_bytes(text.encode())
    use(file, monkeypatch)


@USES
def test_a_folder_or_an_empty_file_is_refused(use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"folder|is not a run"):
        use(folder, monkeypatch)
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing but a comment\n")
    if use is as_site:  # there a file without settings is fine
        use(empty, monkeypatch)
        return
    with pytest.raises(ConfigError, match="is empty; it must hold sections"):
        use(empty, monkeypatch)


def test_a_wrong_setting_of_a_run_is_named_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("training: {steps: many}\nlora: {rnk: 3}\n")
    with pytest.raises(ConfigError) as error:
        as_run(file, monkeypatch)
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert all("config.yaml: " in line for line in lines)


@pytest.mark.parametrize("name", ["none.yaml", "no/such", "x" * 5000 + ".yaml", "a\0b.yaml"])
def test_a_preset_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(name)
