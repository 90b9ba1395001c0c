"""Config files as people have them: every mistake is named with its file and line, and all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo_rewards.errors import ConfigError
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.settings.files import read_text

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
        (GOOD.encode("latin-1"), 2, "is not UTF-8 text; save the file as UTF-8"),
        (GOOD.encode("utf-16"), 1, "is not UTF-8 text but UTF-16; save the file as UTF-8"),
        (b"rewards:\n\ta: {type: x:Y}\n", 2, "YAML indents with spaces, not tabs"),
        (b"rewards:\n  a: {type: x:Y}\n  b: [1, 2\n", 4, "not valid YAML"),
        (b"rewards:\n  a: \x00\n", 2, "YAML does not allow the character"),
        (b"rewards:\n  a: {type: x:Y}\n  a: {type: x:Z}\n", 3, "a is there twice; keep one"),
        (b"rewards: {a: {type: x:Y}}\n---\nrewards: {}\n", 2, "not valid YAML"),
        (b"rewards: !!python/object/apply:os.getcwd []\n", 1, "not valid YAML"),
        (b"rewards:\n  a:\n    type: x:Y\n    num_gpu: 1\n", 4, "unknown key rewards.a.num_gpu; did you mean num_gpus"),
        (b"rewards: {a: {type: x:Y}}\nhttp_port: 70000\n", 2, "http_port: .*65535"),
        (b"rewards: {a: {type: x:Y}}\non: 1\n", 2, "unknown key on"),
        (b"rewards: {a: {type: x:Y}}\nhos\xe2\x80\x8bt: x\n", 2, r"unknown key 'hos.u200bt'; did you mean host"),
        (b"rewards:\n  a: {type: x:Y, num_cpus: true}\n", 2, "rewards.a.num_cpus: true and false are no numbers"),
        (b"rewards:\n  a: {type: x:Y}\nhttp_port: 0x50\n", 3, "http_port: .*integer"),
        (b"rewards:\n  a: {type: x:Y}\nlimits: {body_idle_s: 1:30}\n", 3, "limits.body_idle_s: .*number"),
        (b"rewards:\n  a: {type: x:Y}\nhost: !!timestamp 2026-01-01\n", 3, "timestamp cannot be used"),
        (b"rewards:\n  a: &a {type: x:Y}\n  b:\n    <<: *a\n    cpus: 1\n", 5, "unknown key rewards.b.cpus"),
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
        (b"rewards:\n", "rewards: .*at least 1"),
        (b"rewards: 2024-13-45\n", "rewards: .*dictionary"),
        (b"rewards: " + b"[" * 20_000, "cannot be read as YAML"),
    ],
)
def test_what_holds_no_sections_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(tmp_path, content)


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    content = b"rewards:\n  a: {type: x:Y, batch_size: 0}\n  b:\n    kind: x\nhost: [3]\ngrpc_port: -1\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    lines = [
        line.removeprefix(f"{tmp_path}/service.yaml:").partition(":")[0] for line in str(caught.value).splitlines()
    ]
    assert sorted(lines) == ["2", "3", "4", "5", "6"]  # b has no type, and a key that there is not


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot read /dev/zero: it has more than 10 MB"):
        read_text(Path("/dev/zero"))


def test_a_section_that_contains_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"service.yaml:1: .*\*all contains itself"):
        load(tmp_path, b"rewards: &all {a: *all}\n")


@pytest.mark.parametrize("text", ["no", "on", "1:30", "010", "2026-06-01", "1e3", "0x10", "1.0"])
def test_text_is_what_was_typed(tmp_path: Path, text: str) -> None:
    name = text.replace(":", ".")  # a name has no colon
    content = f"""
rewards:
  a:
    type: {text}
    options: {{answers: {{{text}: 1}}}}
  {name}: {{type: x:Y, runtime_env:}}
mixtures: {{m: {{rewards: {{{name}: 1}}}}}}
host: {text}
api_keys_file: {text}
allowed_hosts: [{name}, "{name}"]
limits:
"""
    config = load(tmp_path, content.encode())
    assert (config.host, str(config.api_keys_file), config.allowed_hosts) == (text, text, [name, name])
    assert config.rewards["a"].type == text
    assert config.rewards["a"].options == {"answers": {text: 1}}
    assert list(config.rewards) == ["a", name]


def test_numbers_and_switches_are_what_they_look_like(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        b"rewards:\n  a: {type: x:Y, num_cpus: 010, deadline_s: 1e2, own_app: yes,\n"
        b"      options: {n: 010, x: 1e-1, yes: no, empty: ~, on: true}}\n",
    )
    reward = config.rewards["a"]
    assert (reward.num_cpus, reward.deadline_s, reward.own_app) == (10.0, 100.0, True)
    assert reward.options == {"n": 10, "x": 0.1, "yes": "no", "empty": None, "on": True}


def test_an_anchor_is_copied_and_merged(tmp_path: Path) -> None:
    content = b"rewards:\n  a: &one {type: x:Y, num_cpus: 2}\n  b: *one\n  c:\n    <<: *one\n    num_cpus: 3\n"
    config = load(tmp_path, content)
    assert [config.rewards[name].num_cpus for name in "abc"] == [2.0, 2.0, 3.0]
    with pytest.raises(ConfigError, match=r"service\.yaml:6: rewards\.c\.num_cpus: .*greater"):
        load(tmp_path, content.replace(b"3\n", b"-3\n"))


def test_names_and_values_are_checked_at_once(tmp_path: Path) -> None:
    content = b"""
rewards:
  a b: {type: sharpness}
  default: {type: sharpness}
  s: {type: sharpness, num_cpus: -1}
  t: {type: sharpness}
mixtures:
  m: {rewards: {q: 1}}
  t: {rewards: {t: 0}}
  good: {rewards: {t: 1}}
http_port: x
"""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    found = [line.removeprefix(f"{tmp_path}/service.yaml:") for line in str(caught.value).splitlines()]
    assert [line.partition(" ")[0] for line in found] == ["3:", "8:", "4:", "6:", "5:", "9:", "11:"]
    for line, words in zip(
        found,
        (
            "'a b' cannot",
            "names 'q'",
            "'default' is both",
            "'t' is both",
            "s.num_cpus",
            "all weights are 0",
            "http_port: ",
        ),
        strict=True,
    ):
        assert words in line
    read = ServiceConfig.read(tmp_path / "service.yaml")
    assert read.settings is not None
    assert (list(read.settings.rewards), list(read.settings.mixtures), read.are_addresses_known) == ([], [], False)


def test_what_is_left_of_a_config_is_read(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(
        "rewards: {a: {type: sharpness}, b: {typ: x}}\nmixtures: {m: {rewards: {a: 1, b: 1}}}\nhost: 10.0.0.1\n"
    )
    read = ServiceConfig.read(path)
    assert [mistake.partition(": ")[2] for mistake in read.mistakes] == [
        "rewards.b.type: Field required",
        "unknown key rewards.b.typ; did you mean type?",
    ]
    assert read.settings is not None
    assert (list(read.settings.rewards), list(read.settings.mixtures)) == (["a"], ["default"])
    assert (read.settings.host, read.are_addresses_known) == ("10.0.0.1", True)


@pytest.mark.parametrize("rewards", ["reward: {a: {type: sharpness}}", "rewards: [a]", "rewards:"])
def test_mixtures_are_not_blamed_for_rewards_that_are_not_there(tmp_path: Path, rewards: str) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(f"{rewards}\nmixtures: {{m: {{rewards: {{a: 1}}}}}}\n")
    mistakes = ServiceConfig.read(path).mistakes
    assert mistakes
    assert not any("names 'a'" in mistake for mistake in mistakes)


def test_a_policy_that_cannot_be_imported_is_a_mistake(tmp_path: Path) -> None:
    text = b"rewards: {a: {type: x:Y, autoscaling: {policy: {policy_function: 'no_such_module.f'}}}}\nhosts: x\n"
    with pytest.raises(ConfigError, match="no_such_module") as caught:
        load(tmp_path, text)
    assert "unknown key hosts" in str(caught.value)


def test_aliases_of_aliases_end(tmp_path: Path) -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
    with pytest.raises(ConfigError, match="unknown key l0"):
        load(tmp_path, f"l0: &l0 [x]\n{levels}".encode())


def test_a_folder_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        ServiceConfig.load(tmp_path)
