"""Write report.html from a run's folder."""

from __future__ import annotations

import json
import shlex
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from drpo.errors import EvaluationError
from drpo.report.content import read_content
from drpo.report.figures import draw_curves, draw_evaluations
from drpo.training.files import write_text

REPORT_FILE = "report.html"


def write_report(run_dir: Path, *, still_trains: bool = False) -> Path:
    """Writes report.html from summary.json, metrics.jsonl, config.yaml and samples/, and returns its path.

    Args:
        run_dir: the run's folder.
        still_trains: whether another process still trains the run, so that the page says how far it is.

    Raises:
        StorageError: it could not be written.
        EvaluationError: the folder has no summary.json; or a part could not be made. Then the page has all others, and
            names it.
    """
    content = read_content(run_dir, still_trains=still_trains)
    files = resources.files("drpo.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # how a text is written in the page's snippets; a JSON string is also one of Python's
    environment.filters |= {"shell": shlex.quote, "python": lambda text: json.dumps(text, ensure_ascii=False)}
    template = environment.from_string(files.joinpath("report.html.j2").read_text(encoding="utf-8"))
    curves, undrawn = draw_curves(content.metrics)
    held_out, undrawn_too = draw_evaluations(content.watched.lines)
    missing = [*content.missing, *undrawn, *undrawn_too]
    html = template.render(
        run=content,
        style=Markup(files.joinpath("report.css").read_text(encoding="utf-8")),
        curves=curves,
        held_out=held_out,
        missing=missing,
    )
    write_text(run_dir / REPORT_FILE, html)
    if missing:
        raise EvaluationError(f"{run_dir / REPORT_FILE} lacks {'; '.join(missing)}")
    return run_dir / REPORT_FILE
