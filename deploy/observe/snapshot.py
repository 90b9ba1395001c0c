"""Draw the dashboard as a picture from Prometheus, for a report or a machine without Grafana.

    python deploy/observe/snapshot.py dashboard.png --minutes 10

The panels and their queries are those of grafana/dashboards/drpo.json.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import matplotlib.pyplot as plt
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

DASHBOARD = Path(__file__).parent / "grafana/dashboards/drpo.json"
POINTS = 300  # per series
GRID_COLUMNS = 24  # as in Grafana

Series = tuple[str, np.ndarray]  # its name, and one value per moment; NaN without a value


def main(
    picture: Annotated[Path, typer.Argument(help="The file to write; its extension sets the format.")],
    prometheus: Annotated[str, typer.Option(help="Address of Prometheus.")] = "http://127.0.0.1:9090",
    minutes: Annotated[float, typer.Option(min=1, help="How far back to draw.")] = 30,
) -> None:
    """Draw the dashboard's panels over the last minutes."""
    end = time.time()
    moments = np.linspace(end - 60 * minutes, end, POINTS)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    try:
        with httpx.Client(base_url=f"{prometheus.rstrip('/')}/api/v1", timeout=30, trust_env=False) as client:
            series = [
                [line for target in panel["targets"] for line in query(client, target, moments)] for panel in panels
            ]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:  # the last two if it is another server
        typer.echo(
            f"Prometheus does not answer at {prometheus}: {error}\nStart it, or set its address with --prometheus."
        )
        raise typer.Exit(1) from None
    try:
        draw(panels, series, moments).savefig(picture, dpi=100)
    except (OSError, ValueError) as error:
        typer.echo(f"{picture} cannot be written: {error}")
        raise typer.Exit(1) from None
    empty = [panel["title"] for panel, lines in zip(panels, series, strict=True) if not lines]
    typer.echo(f"{picture}: {len(panels)} panels" + (f", without data: {', '.join(empty)}" if empty else ""))


def query(prometheus: httpx.Client, target: dict[str, str], moments: np.ndarray) -> list[Series]:
    """Query the series of one target of a panel.

    Raises:
        httpx.HTTPError: Prometheus does not answer, or answers with an error.
    """
    step = moments[1] - moments[0]
    params = {"query": target["expr"], "start": moments[0], "end": moments[-1], "step": step}
    answer = prometheus.get("/query_range", params=params).raise_for_status().json()
    series = []
    for result in answer["data"]["result"]:
        values = np.full(len(moments), np.nan)
        for moment, value in result["values"]:
            values[min(round((moment - moments[0]) / step), len(moments) - 1)] = float(value)
        if np.isfinite(values).any():  # a quantile of nothing is NaN
            series.append((fill_legend(target["legendFormat"], result["metric"]), values))
    return series


def fill_legend(legend: str, labels: dict[str, str]) -> str:
    """Fill a legend such as `{{run}} p95` with the labels of a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend).strip() or "all"


def draw(panels: list[dict[str, Any]], series: list[list[Series]], moments: np.ndarray) -> Figure:
    """Draw each panel at its position in the dashboard's grid."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(13, 0.36 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, GRID_COLUMNS)
    times = (moments * 1e3).astype(np.int64).astype("datetime64[ms]")
    for panel, lines in zip(panels, series, strict=True):
        cell = panel["gridPos"]
        axes = figure.add_subplot(grid[cell["y"] : cell["y"] + cell["h"], cell["x"] : cell["x"] + cell["w"]])
        axes.set_title(panel["title"], loc="left", fontsize=10, fontweight="bold")
        draw_panel(axes, panel["fieldConfig"]["defaults"], lines, times)
    return figure


def draw_panel(axes: Axes, settings: dict[str, Any], lines: list[Series], times: np.ndarray) -> None:
    """Draw the series of one panel, stacked if the panel's settings say so."""
    if settings["custom"].get("stacking", {}).get("mode") == "normal" and lines:
        axes.stackplot(times, *(np.nan_to_num(values) for _, values in lines), labels=[label for label, _ in lines])
    else:
        for label, values in lines:
            axes.plot(times, values, label=label, linewidth=1.4)
    if lines:
        axes.legend(fontsize=7, loc="upper left", frameon=False, ncols=2)
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color="gray")
    axes.set_xlim(times[0], times[-1])
    axes.set_ylim(bottom=settings.get("min"))
    locator = AutoDateLocator(maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if settings["unit"] == "s":
        axes.yaxis.set_major_formatter(EngFormatter("s"))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    typer.run(main)
