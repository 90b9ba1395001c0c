"""The options of the command line, and the progress of a run in a log."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest
import typer
from rich.console import Console
from safetensors.torch import save_file

from drpo.cli import app, endings
from drpo.cli.common import Application, parse_settings
from drpo.cli.endings import endings_as_ctrl_c
from drpo.cli.parts import Parts
from drpo.cli.progress import TrainingProgress
from drpo.config import load_config
from drpo.errors import ConfigError, ModelLoadError
from drpo.generators import check_adapter
from drpo.generators.unet_file import find_unet
from drpo.shapes.assets import generator_path
from drpo.training.run_folder import locate_adapter
from drpo_rewards import process
from drpo_rewards.cli import app as rewards_app


def test_overrides_of_the_command_line():
    arguments = ["--training.steps", "5", "--optimizer.lr=1e-3"]
    assert parse_settings(arguments, {}) == ([], ["training.steps=5", "optimizer.lr=1e-3"])
    assert load_config("shapes", parse_settings(["--lora", "null"], {})[1]).lora is None
    assert load_config("shapes", parse_settings(["--lora={rank: 8}"], {})[1]).lora.rank == 8
    for wrong in (["--steps", "5"], ["--lora"], ["--lora", "--training.steps=3"], ["--training.steps"]):
        with pytest.raises(ConfigError):
            parse_settings(wrong, {})


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize(
    ("command", "words", "values"),
    [
        ("paper", ["table2"], {"experiment": "table2"}),
        ("doctor", ["shapes"], {"preset": "shapes"}),
        ("profile", ["shapes", "--no-rewards", "--steps=2"], {"preset": "shapes", "rewards": False, "steps": 2}),
        ("judge", ["a", "b", "--both-orders", "c"], {"models": ["a", "b", "c"], "both_orders": True}),
        ("eval", ["--row=a=base", "--prompts=x=parti"], {"row": ["a=base"], "prompts": ["x=parti"]}),
        ("train", ["--preset=shapes", "--seed=3", "--dry-run"], {"preset": "shapes", "seed": 3, "dry_run": True}),
    ],
)
@pytest.mark.parametrize("setting", [["--optimizer.lr", "-1"], ["--lora", "null"], ["--evaluation.seed=3"]])
def test_settings_may_stand_anywhere_on_the_command_line(command, words, values, setting):
    for place in range(len(words) + 1):
        context = COMMANDS[command].make_context(command, [*words[:place], *setting, *words[place:]])
        assert {key: context.params[key] for key in values} == values
        assert context.args == [setting[0][2:] if len(setting) == 1 else f"{setting[0][2:]}={setting[1]}"]


def test_a_word_too_many_and_an_unknown_option_are_told():
    for words, message in (
        (["table2", "more"], "there is no argument more; write settings as"),
        (["--stepz", "table2"], "there is no option --stepz"),
        (["--budget", "90m", "--run.name", "--seeds", "2", "table2"], "--run.name needs a value"),
    ):
        with pytest.raises(ConfigError, match=message):
            COMMANDS["paper"].make_context("paper", words)


@pytest.mark.parametrize(
    ("command_line", "words", "completed"),
    [
        (app, "drpo tra", "train"),
        (app, "drpo export --format k", "kohya"),
        (rewards_app, "drpo-rewards upg", "upgrade"),
    ],
)
def test_the_shell_completes_commands_and_choices(command_line, words, completed, monkeypatch, capsys) -> None:
    """As the script calls it that --install-completion writes."""
    program = words.split()[0]
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setenv(f"_{program.upper().replace('-', '_')}_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit) as ended:
        command_line([], prog_name=program)
    assert (ended.value.code or 0, capsys.readouterr().out.split()) == (0, [completed])


def test_progress_in_a_log_is_a_line_every_few_seconds():
    log = io.StringIO()
    config = load_config("shapes", ["training.steps=50"])
    with TrainingProgress(config, Console(file=log)) as progress:
        for step in range(1, 51):
            progress(
                {
                    "step": step,
                    "time_s": step,
                    "reward/redness": 0.5,
                    "loss": 1.0,
                    "images_per_s": 9,
                    "groups_dropped": 0,
                }
            )
    first, last = log.getvalue().splitlines()
    assert first.split()[:4] == ["training", "2%", "step", "1"]
    assert "redness 0.500" in last
    assert last.split()[1] == "100%"


def test_an_offline_run_shows_its_encoding_and_how_many_candidates_are_nearer_to_the_chosen_images():
    log = io.StringIO()
    with TrainingProgress(load_config("shapes-offline"), Console(file=log)) as progress:
        progress.show_encoding(256)
        metrics = {
            "step": 1,
            "time_s": 1,
            "loss": None,
            "images_per_s": 9,
            "groups_dropped": 0,
            "nearer_to_chosen": 0.625,
        }
        progress(metrics)
    encoding, training = log.getvalue().splitlines()
    assert encoding == "encoding images: 256 preferences done"
    assert "62% nearer to chosen" in training


def test_what_is_no_adapter_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe, a damaged pickle, a file without tensors, and a folder with several files."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(ConfigError, match="neither a LoRA adapter nor a U-Net"):
        locate_adapter(tmp_path / "pipe.safetensors")
    for content in (b"", b".", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x02}q\x00(X\x01", bytes(range(256))):
        (tmp_path / "damaged.ckpt").write_bytes(content)
        assert find_unet(tmp_path / "damaged.ckpt") is None
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(ModelLoadError, match="has no tensors"):
        check_adapter(tmp_path / "none.safetensors", generator_path())
    save_file({}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"has several \.safetensors files"):
        locate_adapter(tmp_path)


def test_the_home_folder_in_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    taken: list[object] = []
    command_line = Application()

    @command_line.command()
    def take(several: list[Path], out: Path = Path("~/a.png"), text: str = "~/b", other: Path | None = None) -> None:
        taken.extend([several, out, text, other])

    with pytest.raises(SystemExit, match="0"):
        command_line(["~/x", "a~/x", "--text=~/c"])
    assert taken == [[tmp_path / "x", Path("a~/x")], tmp_path / "a.png", "~/c", None]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, "ended by Ctrl-C"),
        (signal.SIGTERM, "ended by SIGTERM"),
        (signal.SIGHUP, "ended by SIGHUP (the terminal was closed)"),
    ],
)
def test_a_signal_ends_a_command_with_a_line(
    number: signal.Signals, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = Application()

    @app.command()
    def work(part: bool = False) -> None:
        if not part:
            fail()
        parts = Parts(tmp_path)
        with parts.part("evaluation"):
            fail()
        with parts.part("report"):
            raise ValueError("its own fault")
        parts.end()

    def fail() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:  # as a module does that is written in C, while it is imported
            raise ImportError("initialization failed")  # noqa: B904

    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        for arguments, told in (([], line), (["--part"], f"error: evaluation failed: {line}")):
            with pytest.raises(SystemExit) as ended:
                app(arguments)
            assert ended.value.code == 128 + number
            printed = capsys.readouterr().err.splitlines()
            assert printed[0] == f"{told} (ImportError: initialization failed)"
            assert not arguments or printed[1].startswith("error: report failed: ValueError: its own fault")
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before[1])
    assert signal.getsignal(signal.SIGTERM) == before[0]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_at_once_are_one_ending(first: signal.Signals) -> None:
    """As `timeout` sends them, to the process and to its group, or systemd, SIGHUP after SIGTERM."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with endings_as_ctrl_c():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(first)
            for number in (first, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.raise_signal(number)
            assert endings.ending_status() == 128 + first
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_ends_a_run_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shell and kernel both send SIGHUP, so only the first one counts. A later SIGTERM hurries, as a second Ctrl-C."""
    monkeypatch.setattr(process, "AT_ONCE_S", 0.0)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with endings_as_ctrl_c():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with endings_as_ctrl_c():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
