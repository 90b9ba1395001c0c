"""The report's curves, as SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

# Matplotlib draws with stand-ins; the SVG gets the page's variables instead, and so follows its light or dark scheme.
_VARIABLES = {"#101010": "--ink", "#777777": "--muted", "#dddddd": "--line", "#4f46e5": "--tuned", "#0f8a6d": "--hit"}
_INK, _MUTED, _LINE, _FIRST, _SECOND = _VARIABLES


@dataclass(frozen=True)
class Figure:
    """One drawing, its title, the sentence below it, and what a reader who cannot see it is told."""

    title: str
    caption: str
    alt: str
    svg: Markup


@dataclass(frozen=True)
class _Series:
    name: str
    key: str
    color: str


_REWARD = (_Series("reward", "reward_mean", _FIRST), _Series("strict score", "strict_mean", _SECOND))
_LOSS = (_Series("loss", "loss", _FIRST),)


def curves(metrics: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Reward and loss over the steps, as far as the metrics have them."""
    figures = []
    for title, caption, series in (
        (
            "Reward of the candidates",
            "Each dot is a step: the mean over its images, before the step's update. The line is a running mean. "
            "Every step has other prompts, so single steps scatter.",
            _REWARD,
        ),
        (
            "Loss",
            "How far the adapter still is from the drifted targets. The targets move with the adapter, so this need "
            "not fall: the reward is what counts.",
            _LOSS,
        ),
    ):
        drawn = [one for one in series if any(line.get(one.key) is not None for line in metrics)]
        if drawn:
            figures.append(Figure(title, caption, _alt(title, metrics, drawn), _draw(title, metrics, drawn)))
    return figures


def running_mean(values_S: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over the `window` values around each one; fewer at both ends."""
    half = window // 2
    return np.array([values_S[max(0, i - half) : i + half + 1].mean() for i in range(len(values_S))])


def _values(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = [(line["step"], line[key]) for line in metrics if line.get(key) is not None]
    steps_S, values_S = np.array(points, dtype=np.float64).T
    return steps_S, values_S


def _alt(title: str, metrics: Sequence[Mapping[str, Any]], series: Sequence[_Series]) -> str:
    ends = []
    for one in series:
        _, values_S = _values(metrics, one.key)
        mean_S = running_mean(values_S, _window(len(values_S)))
        ends.append(f"the {one.name}'s running mean goes from {mean_S[0]:.3g} to {mean_S[-1]:.3g}")
    return f"{title} over {len(metrics)} steps: {', '.join(ends)}."


def _window(steps: int) -> int:
    return max(1, steps // 12)


def _draw(title: str, metrics: Sequence[Mapping[str, Any]], series: Sequence[_Series]) -> Markup:
    # The object interface, because pyplot would choose a screen and keep the figure.
    import matplotlib
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10}
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=(5.4, 3.0), layout="constrained")
        axes = canvas.add_subplot()
        for one in series:
            steps_S, values_S = _values(metrics, one.key)
            mean_S = running_mean(values_S, _window(len(values_S)))
            axes.plot(steps_S, values_S, "o", color=one.color, markersize=3, markeredgewidth=0, alpha=0.25)
            axes.plot(steps_S, mean_S, color=one.color, linewidth=2.2, label=one.name, solid_capstyle="round")
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_LINE)
        axes.tick_params(colors=_MUTED, length=0, pad=6)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("step", color=_MUTED)
        axes.margins(x=0.02, y=0.08)
        if len(series) > 1:
            axes.legend(frameon=False, labelcolor=_INK, loc="best", handlelength=1.2)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


def _inline(svg: str) -> Markup:
    """Only the <svg> element, without metadata, sizes, namespaces and fonts of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href").replace("<svg", '<svg aria-hidden="true"', 1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return Markup(svg)
