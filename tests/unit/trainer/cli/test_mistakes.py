"""Mistakes on the command line: a line each, exit status 2, and nothing is written. Run in this process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drpo.cli import app
from drpo.cli.common import explain, print_findings
from drpo.cli.evaluate import print_comparison
from drpo.config import load_config
from drpo.training.run_folder import create_run
from drpo_rewards.findings import Finding


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRPO_SITE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The exit status, stdout and stderr of `drpo` with these arguments."""
    with pytest.raises(SystemExit) as ended:
        app(arguments, prog_name="drpo")
    printed = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    assert "Traceback" not in printed.out + printed.err
    return code, printed.out, printed.err


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["train"], ["error: give --preset NAME (drpo doctor lists the presets) or --resume RUN"]),
        (["train", "--preset", "shape"], ["there is no preset 'shape'; did you mean shapes?"]),
        (["train", "--preset", "[final].yaml"], ["error: cannot read [final].yaml: No such file or directory"]),
        (["train", "--preset", "shapes", "--name", "a [b] c"], ["run.name: 'a [b] c' cannot be the name of a run"]),
        (["train", "--resume", "[none]"], ["there is no run [none]"]),
        (
            ["train", "--preset", "shapes", "--training.steps", "0", "--lora.rnk", "3", "--objective.name", "[/x]"],
            ["there is no setting lora.rnk", "training.steps = '0'", "no objective '[/x]'"],
        ),
        (
            ["demo", "--steps", "3", "--run.name", "--training.steps", "3", "--lora.rank"],
            ["there is no option --steps", "--run.name needs a value; one that begins", "--lora.rank needs a value"],
        ),
        (
            ["eval", "--adapter", "[none]", "--out", ".", "--evaluation.split", "x"],
            [
                "there is neither a LoRA adapter nor a U-Net in [none]",
                "evaluation.split: there is no split 'x'",
                "--out: . is a folder",
            ],
        ),
        (
            ["sample", "--prompt", "a \udcff", "--adapter", "none", "--device", "gpu", "--out", "a.xyz"],
            [
                "nor a U-Net in none",
                "no device 'gpu'",
                "(a \\udcff) holds the byte \\xff, which is not UTF-8; correct",
                "as a.xyz",
            ],
        ),
        (["shapes", "render", "--out", "a.xyz"], ["no picture can be written as a.xyz (no format has this ending)"]),
        (["shapes", "render", "--out", "."], ["--out: . is a folder"]),
        (["shapes", "render", "--out", "/proc/a.png"], ["--out: no file can be made in /proc"]),
        (["shapes", "preferences", "--out", "/proc/a"], ["--out: no file can be made in /proc"]),
        (["train", "--preset", "shapes", "--run.folder", ""], ["run.folder: the value is empty; leave it out"]),
        (["train", "--preset", "shapes", "--prompts.path="], ["prompts.path: the value is empty", "or write null"]),
        (["train", "--preset", "shapes", "--optimizer.lr", "1e30"], ["optimizer.lr = '1e30': input should be less"]),
        (["train", "--preset", "shapes", "--lora.alpha", "1e30"], ["lora.alpha = '1e30': input should be less"]),
        (
            ["demo", "--seed", "1", "--run.seed", "2", "--lora", "null", "--lora.rank", "4"],
            ["run.seed is given twice, by --run.seed and by an option", "lora.rank cannot be set with lora: null"],
        ),
        (["demo", "--lora.rank", "4", "--lora", "null"], ["lora.rank cannot be set with lora: null; leave one"]),
        (["sample", "--prompt", "a", "--out="], ["--out is empty: give a path, or leave it out"]),
        (["report", ""], ["an argument is empty, perhaps of an unset variable"]),
        (["sample", "--prompt", "a", "--adapter", ""], ["--adapter is empty: give a path, or leave it out"]),
        (
            ["train", "--preset", "shapes", "--seed", "-1", "--objective.radii", "[1e-300]", "--training.steps", "0"],
            ["run.seed = -1: ", "objective.radii.0 = 1e-300: ", "training.steps = '0'"],
        ),
        (["report", "--nope"], ["error: No such option: --nope; `drpo report --help` tells more\n"]),
        (["sample", "--count", "x"], ["error: Invalid value for '--count'"]),
        (["sample", "--prompt", "p", "--count", "99999999999"], ["error: Invalid value for '--count'"]),
        (["shapes", "render", "--count", "x"], ["error: ", "; `drpo shapes render --help` tells more\n"]),
        (["doctor", "shapes", "--training.steps", "0"], ["training.steps = '0'", "1 of "]),
        (["doctor", "--training.steps", "0"], ["settings are checked with a preset"]),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], lines: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(arguments, capsys)
    assert code == 2
    for line in lines:
        assert line.replace("(a \\udcff)", "('a \\udcff')") in out + err
    assert list(home.iterdir()) == []


def test_results_replace_no_other_file(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts, run_dir = tmp_path / "prompts.json", tmp_path / "run"
    run_dir.mkdir()
    for file in (prompts, run_dir / "config.yaml"):
        file.write_text('[{"prompt": "a red circle"}]')
    for file in (run_dir / "summary.json", run_dir / "mine.json"):
        file.write_text('{"metric": "geneval/strict", "run": "mine"}')
    earlier, page = tmp_path / "results.json", tmp_path / "page.html"
    earlier.write_text('{"metric": "geneval/strict"}')
    for out, expected in (
        (prompts, f"--out: {prompts} exists, and is no file of such results; give another file"),
        (run_dir / "config.yaml", "exists, and is no file of such results"),
        (run_dir / "mine.json", ""),
        (run_dir / "summary.json", f"{run_dir / 'summary.json'} is a file of a run; give another file"),
        (earlier, ""),
        (page, ""),
    ):
        code, _, err = run(["eval", "--adapter", "none", "--out", str(out)], capsys)
        assert code == 2
        assert expected in err if expected else "--out" not in err
    for option in ("--out", "--trace"):
        code, _, err = run(["profile", "shapes", option, str(prompts)], capsys)
        assert (code, f"{option}: {prompts} exists, and is no file of such results" in err) == (2, True)
    trace = tmp_path / "trace.json"
    (tmp_path / "trace-2.json").write_text("mine")
    code, _, err = run(["profile", "shapes", "--compare", "draft", "--trace", str(trace)], capsys)
    assert (code, "trace-2.json exists, and is no file of such results" in err) == (2, True)


def test_a_dry_run_prints_what_doctor_prints(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--prompts.split", "[x]", "--run.name", "007"]
    code, dry_run, _ = run(["train", "--preset", "shapes", "--dry-run", *settings], capsys)
    assert code == 2
    assert "wrong   prompts      prompts.split: there is no split '[x]'" in dry_run
    code, doctor, _ = run(["doctor", "shapes", *settings], capsys)
    assert re.sub(r"[\d.]+", "N", doctor) == re.sub(r"[\d.]+", "N", dry_run)  # free memory changes in between
    code, fine, _ = run(["demo", "--dry-run"], capsys)
    assert (code, fine.splitlines()[-1]) == (0, "nothing is wrong")
    assert list(home.iterdir()) == []


def test_a_run_that_goes_on_is_not_changed_by_a_mistake(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = create_run(load_config("shapes", [f"run.folder={home}", "run.name=mine"]))
    before = (run_dir / "config.yaml").read_bytes()
    code, _, err = run(["train", "--resume", "mine", "--run.folder", "x", "--evaluation.split", "tets"], capsys)
    assert (code, "there is no split 'tets'" in err) == (2, True)
    code, out, _ = run(["train", "--resume", str(run_dir), "--training.steps", "3", "--dry-run"], capsys)
    assert (code, "nothing is wrong" in out) == (0, True)
    assert (run_dir / "config.yaml").read_bytes() == before
    (run_dir / "config.yaml").write_bytes(b"run:\n\tname: x\n")
    code, _, err = run(["train", "--resume", str(run_dir)], capsys)
    assert code == 2
    assert err.startswith(f"error: {run_dir / 'config.yaml'}:2: is not valid YAML")


def test_a_name_is_taken_as_it_was_typed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("2024", "2026-06-01", "on", "null", "007"):
        (home / "runs" / name).mkdir(parents=True)
        code, _, err = run(["train", "--preset", "shapes", "--name", name], capsys)
        assert code == 2
        assert f"run.name: {home / 'runs' / name} exists" in err


def test_what_data_holds_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"base": 1.0, "tuned": 2.0, "difference": 1.0, "ci95": [0.5, 1.5], "images": 2}
    tasks = {"[/INST]": row, "[red]color/attr[/]": row}
    comparison = {"metric": "[x]/y", "percentage": False, "higher_is_better": True, "tasks": tasks, "mean": row}
    print_comparison(comparison)
    print_findings([Finding("models", "model.generator", "wrong", "[final] is gone", "use [/other]")])
    printed = capsys.readouterr().out
    for text in ("[/INST]", "[red]color/attr[/]", "[x]/y", "[final] is gone; use [/other]"):
        assert text in printed


def test_a_fault_of_ours_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message, status = explain(TypeError("unexpected [thing]\nsecond line"))
    assert status == 1
    assert message.startswith("this is a fault of drpo, not yours: TypeError: unexpected [thing]. Please report it")
    assert explain(PermissionError(13, "Permission denied", "/x")) == ("/x: Permission denied", 1)
    assert explain(ModuleNotFoundError("No module", name="ray"))[0].startswith("ray is not installed")
    with pytest.raises(SystemExit):
        app(["train", "--preset", "none", "--debug"])
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.splitlines()[-1].startswith("error: there is no preset 'none'")


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("runs", b"error: prompts.split: there is no split 'gr\\xf6\\xdfe'"),
        ("l\u00e4ufe", b"error: the locale (ascii) cannot express '"),
    ],
)
def test_a_locale_that_is_not_utf_8(folder: str, message: bytes, tmp_path: Path) -> None:
    """Text that is not ASCII is read, and printed as escapes. Only a file that must have such a name is refused."""
    home = tmp_path / "ein Ordner für [alles]"
    home.mkdir()
    settings = {"run": {"folder": folder}, "prompts": {"split": "größe"}}
    (home / "vörgabe.yaml").write_bytes(yaml.safe_dump(settings, allow_unicode=True).encode())
    ended = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "drpo", "train", "--preset", "vörgabe.yaml"],
        cwd=home,
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith(message)
    assert b"Traceback" not in ended.stderr


def test_a_prompt_in_a_locale_that_is_not_utf_8(tmp_path: Path) -> None:
    """Python keeps the bytes that it does not understand, as halves of characters. The line names the locale."""
    ended = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "drpo", "sample", "--prompt", "ein grüner Stern".encode()],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert (
        b"holds the byte \\xc3, which the locale (ascii) does not know; set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
        in ended.stderr
    )
