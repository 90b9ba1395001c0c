"""The report as a file, and in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image
from support.synthetic_run import RAW, write_synthetic_run

from drpo.errors import EvaluationError
from drpo.evaluation import ShownMetric
from drpo.report import write_report
from drpo.report.content import format_duration, read_content
from drpo.report.figures import draw_curves, running_mean

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_run(tmp_path_factory.mktemp("runs") / "a <run> & more")


@pytest.fixture(scope="module")
def report(run_dir: Path) -> Path:
    return write_report(run_dir)


def test_it_is_one_file_that_loads_nothing_from_the_network(report: Path) -> None:
    html = report.read_text()
    page = Page(html)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster", "action", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#")), f"{name}={value[:80]}"
    assert not re.search(r"url\((?!#)|@import|https?://", html)
    assert not page.all("script")
    assert not page.all("link")


def test_it_shows_the_numbers_of_the_summary(run_dir: Path, report: Path) -> None:
    page = Page(report.read_text())
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert "gets more prompts right" in text
    for row in [summary["mean"], *summary["tasks"].values()]:
        assert f"{row['base']:.1f} %" in text
        assert f"{row['tuned']:.1f} %" in text
        assert f"{row['difference']:+.1f}" in text
    assert "a <run> & more" in text, "names are escaped"
    assert "none of them used in training" in text
    weight = yaml.safe_load((run_dir / "config.yaml").read_text())["objective"]["reference_weight"]
    assert f"reference_weight: {weight}" in text
    assert summary["versions"]["torch"] in text
    assert "load_lora_weights" in text


def test_it_shows_pictures_curves_and_bars_with_text_for_screen_readers(report: Path) -> None:
    page = Page(report.read_text())
    images = page.all("img")
    assert len(images) == 6 * 8 * 2
    assert all(re.match(r"(Base|Tuned), .+: (right|wrong)", image["alt"] or "") for image in images)
    assert len(page.all("svg")) == 3
    labels = [attributes["aria-label"] or "" for _, attributes in page.tags if attributes.get("role") == "img"]
    assert any(label.startswith("Reward geneval over 150 steps") for label in labels)
    assert any("generate candidates 61.5 s" in label for label in labels)


def test_a_raw_score_is_not_a_percentage(tmp_path: Path) -> None:
    run_dir = write_synthetic_run(tmp_path / "run", metric=RAW, steps=1)
    text = Page(write_report(run_dir).read_text()).text
    assert "Reward pickscore" in text
    assert "scores higher" in text
    row = json.loads((run_dir / "summary.json").read_text())["mean"]
    assert f"{row['base']:.2f}" in text
    assert "percentage points" not in text


def test_for_some_metrics_lower_is_better(tmp_path: Path) -> None:
    falling = ShownMetric("distance", higher_is_better=False)
    run_dir = write_synthetic_run(tmp_path / "run", metric=falling, steps=1)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["higher_is_better"] is False
    for interval, words in (
        ([-0.9, -0.2], "scores lower, which is better"),
        ([0.1, 0.3], "does worse than before"),
        ([-0.1, 0.3], "No clear change"),
    ):
        summary["mean"]["ci95"] = interval
        (run_dir / "summary.json").write_text(json.dumps(summary))
        text = Page(write_report(run_dir).read_text()).text
        assert words in text
        assert "Lower is better." in text


def test_a_single_prompt_gives_no_interval(tmp_path: Path) -> None:
    run_dir = write_synthetic_run(tmp_path / "run", steps=1)
    summary = json.loads((run_dir / "summary.json").read_text())
    for row in (summary["mean"], *summary["tasks"].values(), *summary["numbers"].values()):
        row["ci95"] = None
    (run_dir / "summary.json").write_text(json.dumps(summary))
    text = Page(write_report(run_dir).read_text()).text
    assert "No clear change" in text
    assert "no interval: a task has a single prompt" in text


def test_headlines_say_what_the_interval_says(tmp_path: Path) -> None:
    run_dir = write_synthetic_run(tmp_path / "run", steps=1)
    summary = json.loads((run_dir / "summary.json").read_text())
    for interval, words in (([-9, -2], "does worse than before"), ([-1, 3], "No clear change")):
        summary["mean"]["ci95"] = interval
        (run_dir / "summary.json").write_text(json.dumps(summary))
        assert words in Page(write_report(run_dir).read_text()).text


def test_the_report_omits_what_a_run_does_not_have(tmp_path: Path) -> None:
    """A run without evaluation, samples, metrics and config still gives a page, which says what to do next."""
    bare = {"run": "bare", "preset": "p", "seed": 0, "steps": 0, "images": 0, "tasks": {}, "mean": None}
    (tmp_path / "summary.json").write_text(json.dumps({**bare, "versions": {"python": "3"}}))
    page = Page(write_report(tmp_path).read_text())
    assert f"drpo eval --adapter {tmp_path / 'adapter'}" in page.text
    assert not page.all("img")
    assert not page.all("svg")
    with pytest.raises(EvaluationError, match=r"no summary\.json"):
        write_report(tmp_path / "nowhere")


def test_large_pictures_are_made_smaller(run_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "run")
    for file in (copy / "samples").glob("*.webp"):
        Image.open(file).resize((512, 512)).save(file, quality=80)
    content = read_content(copy)
    source = content.tasks[0].pairs[0].base.source
    assert source.startswith("data:image/webp;base64,")
    assert write_report(copy).stat().st_size < 3_000_000


def test_durations_and_running_means() -> None:
    import numpy as np

    assert [format_duration(seconds) for seconds in (3.21, 45, 200, 7500)] == [
        "3.2 s",
        "45 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
    np.testing.assert_allclose(running_mean(np.array([0.0, 3.0, 6.0, 9.0]), 3), [1.5, 3.0, 6.0, 7.5])
    assert [figure.title for figure in draw_curves([{"step": 1, "loss": 1.0}])[0]] == ["Loss"]
    line = {"step": 1, "loss": None, "reward/a/b": 20.5, "reward_std/a/b": 1.0, "metric/a/b/share": 0.5}
    assert [figure.title for figure in draw_curves([line])[0]] == ["Reward a/b", "Metric share of a/b"]
    line["metric/a/b/same"] = line["reward/a/b"]
    assert len(draw_curves([line])[0]) == 2, "a metric that repeats the score is not drawn again"
    before = {"step": 0, "loss": None, "reward/a/b": 20.0}  # written before rewards declared metrics
    assert len(draw_curves([before, line])[0]) == 2, "nor where some steps lack it"
    assert draw_curves([]) == ([], [])


PROBE = """<script>
addEventListener("load", () => parent.postMessage({
  images: document.images.length,
  broken: [...document.images].filter(image => !image.naturalWidth).length,
  wider: document.documentElement.scrollWidth - innerWidth,
  curves: [...document.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().height > 100).length,
  height: document.body.scrollHeight,
}, "*"));
</script>"""

FRAME = """<body><iframe width="{width}" height="800" src="{file}"></iframe><pre></pre><script>
addEventListener("message", event => document.querySelector("pre").textContent = JSON.stringify(event.data));
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("width", [375, 1280])
def test_in_a_browser_everything_is_shown_and_fits_the_width(report: Path, width: int, tmp_path: Path) -> None:
    """On a phone and on a desktop: all pictures decode, all curves are drawn, and the page scrolls only vertically."""
    (tmp_path / "report.html").write_text(report.read_text().replace("</body>", PROBE + "</body>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, file="report.html"))
    assert CHROMIUM is not None
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,900", "--virtual-time-budget=10000", "--dump-dom",
    ]  # fmt: skip
    browser = subprocess.run(
        [CHROMIUM, *flags, (tmp_path / "frame.html").as_uri()], capture_output=True, text=True, timeout=240
    )
    result = re.search(r"<pre>(\{.*?\})</pre>", browser.stdout)
    assert result, f"Chromium showed nothing: {browser.stdout[-300:]} {browser.stderr[-800:]}"
    page = json.loads(result[1])
    assert page["images"] == 96
    assert page["broken"] == 0
    assert page["curves"] == 3
    assert page["wider"] <= 0
    assert page["height"] > 2000
