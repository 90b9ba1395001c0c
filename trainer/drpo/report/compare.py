"""One page with the curves and the pictures of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from drpo.report.figures import Curve, Figure, draw_together, read_points
from drpo.report.overview import Overview, read_overview
from drpo.report.watched import Watched, read_watched
from drpo.training.files import storing, write_text
from drpo.training.metrics import read_metrics
from drpo.training.run_folder import METRICS_FILE

COLORS = ("#4f46e5", "#2a9d8f", "#e9a23b", "#d0587e", "#5b8def", "#7b8494", "#8a5a44", "#1b1d22")
"""The colours of the runs, in their order; with more runs they begin again."""


@dataclass(frozen=True)
class ComparedRun:
    """A run on the page."""

    overview: Overview
    color: str
    metrics: Sequence[dict[str, Any]]
    watched: Watched


def write_comparison_page(run_dirs: Sequence[Path], out: Path) -> Path:
    """Writes the page, and returns its path.

    Args:
        run_dirs: the folders of the runs, finished or not.
        out: the HTML file.

    Raises:
        StorageError: it could not be written.
    """
    missing: list[str] = []
    runs = []
    for number, run_dir in enumerate(run_dirs):
        of_run: list[str] = []
        watched = read_watched(run_dir, of_run)
        metrics = read_metrics(run_dir / METRICS_FILE)
        runs.append(ComparedRun(read_overview(run_dir), COLORS[number % len(COLORS)], metrics, watched))
        missing += [f"{what} (run {run_dir.name})" for what in of_run]
    files = resources.files("drpo.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files.joinpath("compare.html.j2").read_text(encoding="utf-8"))
    html = template.render(
        runs=runs,
        held_out=_draw(runs, [one.watched.lines for one in runs], "present", missing),
        training=_draw(runs, [one.metrics for one in runs], None, missing),
        missing=missing,
        style=Markup(files.joinpath("report.css").read_text(encoding="utf-8")),
    )
    with storing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, html)
    return out


def _draw(
    runs: Sequence[ComparedRun], lines: Sequence[Sequence[dict[str, Any]]], side: str | None, missing: list[str]
) -> list[Figure]:
    """A figure with one curve per run, for each number that a run has: of the evaluations, or of training.

    What cannot be drawn is named in `missing`, with its run.
    """
    numbers = [[{"step": line["step"], **(line[side] if side else line)} for line in one] for one in lines]
    keys = dict.fromkeys(key for one in numbers for line in one for key in line)
    if side is None:
        keys = dict.fromkeys(key for key in keys if key.startswith(("reward/", "metric/")) or key == "loss")
    keys.pop("step", None)
    figures = []
    for key in keys:
        curves: list[Curve] = []
        for run, lines_of_run in zip(runs, numbers, strict=True):
            try:
                points_2S = read_points(lines_of_run, key)
            except Exception as error:  # whatever a curve fails with, the others are drawn
                missing.append(f"the curve {key} (run {run.overview.name}: {type(error).__name__}: {error})")
                continue
            if points_2S.size:
                curves.append((points_2S, run.color))
        try:
            figures += [draw_together(key, curves, smooth=side is None)] if curves else []
        except Exception as error:
            missing.append(f"the curves {key} ({type(error).__name__}: {error})")
    return figures
