"""Write report.html from a run's folder."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from drpo.report.content import read_content
from drpo.report.figures import draw_curves

REPORT_FILE = "report.html"


def write_report(run_dir: Path) -> Path:
    """Writes report.html from summary.json, metrics.jsonl, config.yaml and samples/, and returns its path.

    Raises:
        EvaluationError: the folder has no summary.json.
    """
    content = read_content(run_dir)
    files = resources.files("drpo.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"shell": shlex.quote, "python": repr}  # whatever a name or prompt holds, the examples run
    template = environment.from_string(files.joinpath("report.html.j2").read_text())
    html = template.render(
        run=content,
        style=Markup(files.joinpath("report.css").read_text()),
        curves=draw_curves(content.metrics),
    )
    partial = run_dir / f".partial-{REPORT_FILE}"
    partial.write_text(html)
    partial.replace(run_dir / REPORT_FILE)
    return run_dir / REPORT_FILE
