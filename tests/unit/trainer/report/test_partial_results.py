"""A result that cannot be made takes no other along, and whatever a task or a prompt is called, it is only text."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.synthetic_run import write_synthetic_run

from drpo.cli import app
from drpo.cli.parts import FAILURES_FILE, Parts
from drpo.config import load_config
from drpo.data.prompts.record import PromptRecord
from drpo.errors import EvaluationError
from drpo.evaluation import EvaluationResult, PlannedImage, ScoredImage, ShownMetric, compare, write_summary
from drpo.evaluation.adapter import AdapterEvaluation
from drpo.report import write_report
from drpo.training.run_folder import write_config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_run(tmp_path_factory.mktemp("runs") / "run", steps=5)


@pytest.fixture
def run_dir(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    assert end.value.code is None or isinstance(end.value.code, int)
    return end.value.code or 0


def break_a_picture(run_dir: Path) -> None:
    next((run_dir / "samples").glob("*-tuned.webp")).write_bytes(b"no picture")


def lose_a_picture(run_dir: Path) -> None:
    next((run_dir / "samples").glob("*-base.webp")).unlink()


def break_the_index(run_dir: Path) -> None:
    (run_dir / "samples" / "index.json").write_text('[{"task": ')


def log_a_word(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 6, "time_s": 1.0, "reward/geneval": "high"}\n')


@pytest.mark.parametrize(
    ("damage", "problem", "pictures", "curves"),
    [
        (break_a_picture, "a pair of pictures: cannot identify", 94, 3),
        (lose_a_picture, "a pair of pictures: ", 94, 3),
        (break_the_index, "all pictures: ", 0, 3),
        (log_a_word, "the curve Reward geneval (ValueError", 96, 2),
        (lambda run_dir: (run_dir / "config.yaml").write_text("run:\n\tname: x"), "facts from the settings: ", 96, 3),
    ],
)
def test_the_report_has_everything_else(
    run_dir: Path, damage: Callable[[Path], object], problem: str, pictures: int, curves: int
) -> None:
    damage(run_dir)
    with pytest.raises(EvaluationError, match="lacks " + re.escape(problem)):
        write_report(run_dir)
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert page.count("<img ") == pictures
    assert page.count("<svg ") == curves
    assert "gets more prompts right" in page
    assert f"could not be read or drawn: {problem}" in html.unescape(page)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("metrics.jsonl", '{"step": 6, "time_s": Infinity}'),
        ("metrics.jsonl", '{"step": 6, "images": "x"}'),
        ("metrics.jsonl", '{"step": 6, "images_per_s": [1]}'),
        ("metrics.jsonl", '{"step": 6, "seconds": {"generate": null}}'),
        ("metrics.jsonl", f'{{"step": 1{"0" * 400}}}'),
        ("evaluations.jsonl", '{"step": 6, "seconds": "x"}'),
        ("evaluations.jsonl", '{"step": 6, "seconds": NaN}'),
    ],
)
def test_a_line_whose_counts_or_times_are_no_numbers_is_left_out(run_dir: Path, file: str, line: str) -> None:
    before = json.loads((run_dir / "summary.json").read_text())
    with (run_dir / file).open("a") as lines:
        lines.write(line + "\n")
    (run_dir / "report.html").unlink(missing_ok=True)
    assert status("report", str(run_dir)) == 0
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == before["steps"]
    assert (run_dir / "report.html").is_file()


def test_a_loss_that_became_infinite_is_drawn_as_far_as_it_goes(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 6, "time_s": 9.0, "loss": Infinity, "images": 96, "images_per_s": 80.0}\n')
    assert status("report", str(run_dir)) == 0
    assert (run_dir / "report.html").read_text(encoding="utf-8").count("<svg ") == 3


def test_summary_and_report_are_made_anew(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((run_dir / "summary.json").read_text())
    (run_dir / "summary.json").unlink()
    assert status("report", str(run_dir)) == 0
    after = json.loads((run_dir / "summary.json").read_text())
    assert after == {**before, "seconds": {"training": 5.5, "by_stage": before["seconds"]["by_stage"]}}
    assert (run_dir / "report.html").is_file()

    (run_dir / "summary.json").write_text('{"run": "ru')
    (run_dir / "evaluation.json").write_text("")
    capsys.readouterr()
    assert status("report", str(run_dir)) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert re.match(r"error: evaluation failed: .*evaluation\.json is damaged; evaluate the run again", errors[0])
    assert errors[1].endswith(f"drpo eval --adapter {run_dir}")
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 5
    assert "has\n  not been compared" in (run_dir / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    ['{"seconds": 5}', '{"mean": 5}', '{"mean": {"base": "x", "tuned": 1}}', '{"tasks": {"a": {}}}', "[" * 100_000],
)
def test_results_that_are_whole_but_other_ones_are_damaged(
    run_dir: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((run_dir / "summary.json").read_text())
    (run_dir / "summary.json").write_text(text)
    assert status("runs", str(run_dir.parent)) == 0
    assert "run" in capsys.readouterr().out
    assert status("report", str(run_dir)) == 0
    assert json.loads((run_dir / "summary.json").read_text())["mean"] == before["mean"]
    (run_dir / "evaluation.json").write_text(text)
    assert status("report", str(run_dir)) == 1
    assert "evaluation.json is damaged; evaluate the run again" in capsys.readouterr().err
    assert json.loads((run_dir / "summary.json").read_text())["mean"] == before["mean"]


def test_a_report_without_a_home_that_can_be_written_says_nothing_more(run_dir: Path) -> None:
    environment = {**os.environ, "MPLCONFIGDIR": "/proc/none"}  # also root cannot make a folder there
    command = [sys.executable, "-m", "drpo", "report", str(run_dir)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_report_of_a_run_that_still_trains(run_dir: Path, tmp_path: Path) -> None:
    young = tmp_path / "young"
    young.mkdir()
    write_config(load_config("shapes"), young)
    assert status("report", str(young)) == 0
    shutil.copy(run_dir / "metrics.jsonl", young)
    with (young / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 6, "lo')  # being written
    assert status("report", str(young)) == 0
    assert json.loads((young / "summary.json").read_text())["steps"] == 5
    assert status("report", str(tmp_path)) == 2

    # evaluated at step 3, trained on to step 5
    (run_dir / "checkpoints" / "step-000003").mkdir(parents=True)
    comparison = json.loads((run_dir / "evaluation.json").read_text())
    (run_dir / "evaluation.json").write_text(json.dumps({**comparison, "evaluated_step": 3}))
    assert status("report", str(run_dir)) == 0
    assert "has trained 2 more steps since this comparison" in (run_dir / "report.html").read_text(encoding="utf-8")


def test_a_part_that_fails_is_named_and_the_others_are_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts, made = Parts(tmp_path), []
    for _ in range(2):  # tried twice, said once
        with parts.part("evaluation"):
            raise EvaluationError("no [prompts]\nat :all:")
    with parts.part("summary.json"):
        raise ZeroDivisionError("by zero")
    with parts.part("report.html"):
        made.append("report")
    with pytest.raises(Exception, match="1") as end:
        parts.end()
    assert getattr(end.value, "exit_code", None) == 1
    assert made == ["report"]
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "error: evaluation failed: no [prompts] at :all:"
    assert second == f"error: summary.json failed: ZeroDivisionError: by zero (details: {tmp_path / FAILURES_FILE})"
    assert last.endswith(f"run drpo eval --adapter {tmp_path}")
    assert "ZeroDivisionError: by zero" in (tmp_path / FAILURES_FILE).read_text()


ODD = [
    "color/attr", "[/INST]", "..", ".", "/", "con", "", "$x^2$ \\frac", "_nolegend_", "{{ 7 * 7 }} {% raw %}",
    "<script>alert(1)</script>", "</code><b>", "\N{LARGE RED CIRCLE}:smile:", "a\x00b", "C:\\x", "`rm -rf` $(x) \"'",
    "*?[a-z]", "a" * 400, "half a \ud83d surrogate",
]  # fmt: skip
"""Texts that other programs take for paths, markup, patterns or commands."""


def test_any_text_may_be_a_task_a_prompt_or_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)

    def side(score: float) -> EvaluationResult:
        planned = [PlannedImage(PromptRecord(f"{text} x", None, text), 0, 7, True) for text in ODD]
        images = [ScoredImage(one, score, {"r": score}, (one.record.task,), picture) for one in planned]
        return EvaluationResult(ShownMetric("r"), images)

    from drpo.cli.evaluate import print_comparison

    evaluated = AdapterEvaluation(side(0.0), side(1.0), compare(side(0.0), side(1.0)), 1.0)
    run_dir = tmp_path / "run"
    evaluated.save(run_dir)
    (run_dir / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward/$x$_": 1.0, "reward/<b>": 2.0}) + "\n")
    config = load_config("shapes")
    write_config(config, run_dir)
    summary = write_summary(run_dir, config)
    assert list(summary["tasks"]) == ODD
    page = write_report(run_dir).read_text(encoding="utf-8")

    files = sorted(path.name for path in (run_dir / "samples").iterdir())
    assert len(files) == 2 * len(ODD) + 1
    assert all(re.fullmatch(r"\d\d(-[a-z0-9-]{1,40})?-00-(base|tuned)\.webp|index\.json", name) for name in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert "<script" not in page
    assert page.count("<svg ") == 2
    shown = html.unescape(page)
    captions = [html.unescape(caption) for caption in re.findall("<figcaption>([^<]*) x</figcaption>", page)]
    assert captions[:-1] == ODD[:-1]
    assert captions[-1] == r"half a \ud83d surrogate"
    command = re.search(r"<code>(drpo sample .*)</code>", shown)
    assert command
    assert shlex.split(command[1])[-1] == f"{ODD[0]} x"

    evaluated.comparison["tasks"].pop(ODD[-1])
    print_comparison(evaluated.comparison)
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("color/attr", "[/INST]", ":smile:", "_nolegend_"))
