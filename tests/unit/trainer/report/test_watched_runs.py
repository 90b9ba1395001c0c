"""The strip, the held-out curves and the comparison of runs, in the pages and in the table of runs."""

from __future__ import annotations

import html
import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.synthetic_run import write_synthetic_run

from drpo.cli import app
from drpo.errors import EvaluationError
from drpo.report import write_report
from drpo.report.compare import write_comparison_page
from drpo.report.overview import read_overview, read_overviews
from drpo.report.watched import read_watched
from drpo.training.run_lock import lock_run
from drpo.watching import guards

PROMPTS = ["a <red> ring", "two moons"]


def write_watched_run(run_dir: Path) -> Path:
    """A synthetic run with three evaluations during training, the second of which failed."""
    write_synthetic_run(run_dir, steps=20)
    samples = run_dir / "samples"
    random = np.random.default_rng(0)
    lines = []
    for step in (0, 10, 20):
        line = {"step": step, "time_s": 1.0 * step, "seconds": 2.5, "images": 12}
        if step == 10:
            lines.append({**line, "error": "ConnectionError: gone"})
            continue
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(samples / f"step-{step}.png")
        present = {"geneval": 0.5 + step / 100, "geneval/strict": 0.4, "guard/diversity": 1 - step / 50}
        lines.append({**line, "present": present, "averaged": present, "grid": f"samples/step-{step}.png"})
    lines[-1]["stopped"] = "guard/diversity is 0.6, below 0.7 (training.stop_if)"
    (samples / "grid.json").write_text(json.dumps([{"prompt": prompt, "seeds": [1]} for prompt in PROMPTS]))
    (run_dir / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("report", run_dir) == 0
    return run_dir


def call(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        app([str(word) for word in words])
    return end.value.code or 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_watched_run(folder / "first")
    write_watched_run(folder / "second")
    return folder


def test_the_report_shows_the_strip_and_the_guards(runs: Path) -> None:
    html = write_report(runs / "first").read_text(encoding="utf-8")
    strip = re.search(r'<div class="strip".*?</div>', html, re.S)
    assert strip
    assert re.findall(r"<b>step (\d+)</b>", strip[0]) == ["0", "20"]
    assert strip[0].count("data:image/png;base64,") == 2
    assert "a &lt;red&gt; ring; two moons." in html
    assert "The run was ended early:</b> guard/diversity is 0.6, below 0.7" in html
    assert "1 evaluation failed and is not shown" in html
    assert re.search(r"Diversity<small>.*?</th><td>1.00</td><td><b>0.60</b></td><td>−0.40</td>", html)
    assert [title in html for title in ("<h3>Reward geneval</h3>", "<h3>Diversity</h3>")] == [True, True]
    assert "evaluation during training <b>7.5 s</b>" in html
    summary = json.loads((runs / "first" / "summary.json").read_text())
    assert (summary["evaluations"], summary["evaluations_failed"]) == (3, 1)


def test_the_report_of_a_run_that_still_trains_says_how_far_it_is(tmp_path: Path) -> None:
    run_dir = write_watched_run(tmp_path / "run")
    for evaluated in ("evaluation.json", "summary.json"):
        (run_dir / evaluated).unlink()
    with lock_run(run_dir):
        assert call("report", run_dir) == 0
    html = (run_dir / "report.html").read_text(encoding="utf-8")
    assert re.search(r"The run is at\s+step 20 of at most 260", html)
    assert '<div class="strip"' in html
    assert "Use the adapter" not in html  # there is none yet
    assert call("report", run_dir) == 0
    html = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "The run is at" not in html
    assert "Use the adapter" in html


def test_the_base_has_its_own_guards_also_if_the_run_started_from_an_adapter(tmp_path: Path) -> None:
    lines = [{"step": step, "present": {"guard/distance_to_base": 0.1 * step}} for step in (1, 2)]
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_watched(tmp_path, []).guards == [("Distance to the base", 0.0, 0.2)]


def test_the_report_knows_every_guard_metric(tmp_path: Path) -> None:
    names = [guards.DIVERSITY, guards.DISTANCE, guards.COLORS, guards.PLACES]
    line = {"step": 1, "present": dict.fromkeys(names, 0.5)}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    found = read_watched(tmp_path, []).guards
    assert [(base, last) for _, base, last in found] == [(1.0, 0.5), (0.0, 0.5), (1.0, 0.5), (1.0, 0.5)]


def test_a_damaged_picture_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run_dir = write_watched_run(tmp_path / "run")
    (run_dir / "samples" / "step-0.png").write_bytes(b"no picture")
    missing: list[str] = []
    watched = read_watched(run_dir, missing)
    assert [moment.step for moment in watched.strip] == [20]
    assert missing
    assert missing[0].startswith("the pictures of step 0: ")


def test_a_damaged_line_takes_only_its_curve_and_its_picture_along(tmp_path: Path) -> None:
    good, bad = write_watched_run(tmp_path / "good"), write_watched_run(tmp_path / "bad")
    damaged = {"step": 20, "present": {"geneval": "x", "guard/diversity": "x"}, "grid": "samples/step-20.png"}
    (bad / "evaluations.jsonl").write_text(json.dumps(damaged) + "\n")
    (bad / "metrics.jsonl").write_text(json.dumps({"step": 20, "loss": "x", "reward/geneval": 0.5}) + "\n")
    (bad / "samples" / "index.json").write_text("5")
    page = write_comparison_page([good, bad], tmp_path / "compare.html").read_text()
    [note] = re.findall(r"Missing from this page.*", page)
    named = [
        r"the pictures of step 20: .*? \(run bad\)",
        r"the curve geneval \(run bad: ValueError: .*?\)",
        r"the curve loss \(run bad: ValueError: .*?\)",
    ]
    assert all(re.search(one, html.unescape(note)) for one in named)
    assert "<h3>geneval</h3>" in page  # of the other run
    assert "<h3>geneval/strict</h3>" in page
    with pytest.raises(EvaluationError, match=r"lacks all pictures.*the curve Reward geneval"):
        write_report(bad)
    assert "the curve Diversity" in (bad / "report.html").read_text()


def test_runs_are_compared_on_one_page(runs: Path, tmp_path: Path) -> None:
    page = write_comparison_page([runs / "first", runs / "second"], tmp_path / "compare.html").read_text()
    assert not re.search(r"https?://|<script", page)
    assert page.count('<div class="strip"') == 3  # the last pictures of both side by side, and each through its run
    assert page.count("<b>first, step 20</b>") == page.count("<b>second, step 20</b>") == 1
    [figure] = re.findall(r"<h3>Diversity</h3>.*?</figure>", page, re.S)
    assert "Diversity of 2 runs, which end at 0.6, 0.6." in figure
    assert "reward/geneval" in page


def test_the_command_line_lists_and_compares_runs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("runs", runs) == 0
    printed = capsys.readouterr().out
    assert re.search(r"first .* ended by a guard +20/260 .* \d\d-\d\d \d\d:\d\d", printed)  # one line, in a pipe
    assert call("compare", runs / "first", runs / "second", "--out", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").is_file()
    assert call("compare", runs / "first", "--out", tmp_path / "one.html") == 2
    settings = runs / "first" / "config.yaml"
    before = settings.read_text()
    assert call("compare", runs / "first", runs / "second", "--out", settings) == 2  # a page replaces no other file
    assert settings.read_text() == before
    assert call("compare", runs / "first", runs / "first") == 2
    assert call("compare", runs / "first", runs / "third") == 2
    assert call("runs", tmp_path / "nothing") == 2
    assert call("--version") == 0
    assert re.search(r"^drpo \d+\.\d+", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("settings", ["", "preset: [", "a: 1"])
def test_a_run_whose_settings_cannot_be_read_is_listed_as_damaged(tmp_path: Path, settings: str) -> None:
    for name in ("first", "run", "other"):  # a folder of somebody else has no metrics or lock of ours
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(settings)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "first" / ".lock").touch()  # ended before its first step
    assert {(one.name, one.state) for one in read_overviews(tmp_path)} == {("first", "damaged"), ("run", "damaged")}


def test_a_run_that_has_trained_on_is_no_longer_ended_by_its_guard(tmp_path: Path) -> None:
    run_dir = write_watched_run(tmp_path / "run")
    assert read_overview(run_dir).state == "ended by a guard"
    with (run_dir / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps({"step": 21, "time_s": 23.1}) + "\n")
    assert read_overview(run_dir).state == "evaluated"
    assert call("report", run_dir) == 0
    assert json.loads((run_dir / "summary.json").read_text())["stopped"] is None
    assert "ended early" not in (run_dir / "report.html").read_text(encoding="utf-8")


def test_a_run_that_is_trained_now_says_so(runs: Path) -> None:
    with lock_run(runs / "second"):
        assert read_overview(runs / "second").state == "training"
    assert read_overview(runs / "second").state == "ended by a guard"
    (runs / "second" / ".lock").write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}))
    assert read_overview(runs / "second").state == "ended by a guard"  # a lock that a crash has left
