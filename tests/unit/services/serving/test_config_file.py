"""Config files as people have them: every mistake is named with its file and line, and all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.config import ServiceConfig

GOOD = "rewards:\n  a: {type: x:Y, options: {question: größer}}\n"


def load(folder: Path, content: bytes) -> ServiceConfig:
    path = folder / "service.yaml"
    path.write_bytes(content)
    return ServiceConfig.load(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_utf_8_is_read_with_and_without_a_mark(tmp_path: Path, encoding: str, line_end: str) -> None:
    config = load(tmp_path, GOOD.replace("\n", line_end).encode(encoding))
    assert config.rewards["a"].options == {"question": "größer"}


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (GOOD.encode("latin-1"), 2, "not UTF-8 text; save the file as UTF-8"),
        (GOOD.encode("utf-16"), 1, "this is UTF-16 text; save the file as UTF-8"),
        (b"rewards:\n\ta: {type: x:Y}\n", 2, "YAML indents with spaces, not tabs"),
        (b"rewards:\n  a: {type: x:Y}\n  b: [1, 2\n", 4, "not valid YAML"),
        (b"rewards:\n  a: \x00\n", 2, "not valid YAML"),
        (b"rewards:\n  a: {type: x:Y}\n  a: {type: x:Z}\n", 3, "rewards.a is there twice"),
        (b"rewards: {a: {type: x:Y}}\n---\nrewards: {}\n", 2, "not valid YAML"),
        (b"rewards: !!python/object/apply:os.getcwd []\n", 1, "not valid YAML"),
        (b"rewards:\n  a:\n    type: x:Y\n    num_gpu: 1\n", 4, "unknown key rewards.a.num_gpu; did you mean num_gpus"),
        (b"rewards: {a: {type: x:Y}}\nhttp_port: 70000\n", 2, "http_port: .*65535"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, content: bytes, line: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path}/service.yaml:{line}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"# a comment\n", "is empty"),
        (b"- rewards\n", "holds a list, not sections"),
        (b"rewards", "holds a text, not sections"),
        (b"rewards: 2024-13-45\n", "not valid YAML: month must be"),
        (b"rewards: " + b"[" * 20_000, "not valid YAML"),
    ],
)
def test_what_holds_no_sections_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(tmp_path, content)


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    content = b"rewards:\n  a: {type: x:Y, batch_size: 0}\n  b:\n    kind: x\nhost: 3\ngrpc_port: -1\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    lines = [
        line.removeprefix(f"{tmp_path}/service.yaml:").partition(":")[0] for line in str(caught.value).splitlines()
    ]
    assert sorted(lines) == ["2", "3", "4", "5", "6"]  # b has no type, and a key that there is not


def test_a_section_that_contains_itself_ends(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, b"rewards: &all {a: *all}\n")


def test_a_folder_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        ServiceConfig.load(tmp_path)
