"""Draw the report's curves as SVG. They take their colours and font from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from drpo.report.watched import GUARDS

# Matplotlib draws with these colours. In the SVG they become variables of the page, which has light and dark colours.
_VARIABLES = {"#777777": "--muted", "#dddddd": "--line", "#4f46e5": "--tuned"}
_MUTED, _LINE, _CURVE = _VARIABLES

_STEPS = (
    "Each dot is a step: the mean over its images, before the step's update. The line is a running mean. "
    "Every step has different prompts, so the dots scatter."
)
_LOSS = (
    "The distance of the features from their targets. The targets move with the adapter, so the loss need not fall: "
    "the rewards show whether training works."
)
_HELD_OUT = "The mean over tasks on held-out prompts, the same prompts and noises at every evaluation."
_NEARER = (
    "The share of the candidates that lie nearer to the chosen images than to the rejected ones, by their features."
)


@dataclass(frozen=True)
class Figure:
    """A figure: its title, its caption, its description for screen readers, and its drawing."""

    title: str
    caption: str
    alt: str
    svg: Markup


def draw_curves(metrics: Sequence[Mapping[str, Any]]) -> tuple[list[Figure], list[str]]:
    """Draws one curve over the steps for each reward, for each metric that a reward declares, and for the loss.

    A metric that always equals its reward's score is left out.

    Args:
        metrics: the lines of metrics.jsonl; see `drpo.training.tally` for their keys.

    Returns:
        The figures; and for each that could not be drawn, its title and the reason.
    """
    keys = dict.fromkeys(key for line in metrics for key in line)
    titles = {key: f"Reward {key.removeprefix('reward/')}" for key in keys if key.startswith("reward/")}
    for key in keys:
        if key.startswith("metric/"):
            reward, _, metric = key.removeprefix("metric/").rpartition("/")
            if any(line[key] != line.get(f"reward/{reward}") for line in metrics if key in line):
                titles[key] = f"Metric {metric} of {reward}"
    if "nearer_to_chosen" in keys:
        titles["nearer_to_chosen"] = "Nearer to the chosen images"
    if any(line.get("loss") is not None for line in metrics):
        titles["loss"] = "Loss"
    figures, undrawn = [], []
    for key, title in titles.items():
        try:
            caption = {"loss": _LOSS, "nearer_to_chosen": _NEARER}.get(key, _STEPS)
            figures.append(_figure(title, caption, metrics, key))
        except Exception as error:  # whatever a curve fails with, the others are drawn
            undrawn.append(f"the curve {title} ({type(error).__name__}: {error})")
    return figures, undrawn


def draw_evaluations(lines: Sequence[Mapping[str, Any]]) -> tuple[list[Figure], list[str]]:
    """Draws every number of the evaluations during training over the steps.

    Args:
        lines: see `drpo.training.evaluations`; those that failed are left out.

    Returns:
        As `draw_curves`.
    """
    figures, undrawn = [], []
    for key in dict.fromkeys(name for line in lines for name in line["present"]):
        if key not in GUARDS and _repeats_its_reward(key, lines):
            continue
        reward, _, metric = key.partition("/")
        title, caption = f"Metric {metric} of {reward}" if metric else f"Reward {reward}", _HELD_OUT
        if key in GUARDS:
            title, caption = GUARDS[key].title, GUARDS[key].meaning
        try:
            steps_S, values_S = _points(lines, "present", key)
            averaged = _points(lines, "averaged", key) if any("averaged" in line for line in lines) else None
            caption += " Grey: the averaged adapter." if averaged is not None else ""
            alt = f"{title} in {len(steps_S)} evaluations: from {values_S[0]:.3g} to {values_S[-1]:.3g}."
            figures.append(
                Figure(title, caption, alt, _draw(title, steps_S, values_S, values_S, averaged, key in GUARDS))
            )
        except Exception as error:  # whatever a curve fails with, the others are drawn
            undrawn.append(f"the curve {title} ({type(error).__name__}: {error})")
    return figures, undrawn


Curve = tuple[NDArray[np.float64], str]
"""Steps and values of a run, (2, S), and its colour."""


def draw_together(key: str, runs: Sequence[Curve], *, smooth: bool) -> Figure:
    """Draws a number of several runs over their steps.

    Args:
        key: the number.
        runs: those that have the number.
        smooth: draw running means, for numbers of single steps.
    """
    curves = []
    for (steps_S, values_S), color in runs:
        curves.append((steps_S, running_mean(values_S, max(1, len(values_S) // 12)) if smooth else values_S, color))
    title = GUARDS[key].title if key in GUARDS else key
    caption = "Running means over the steps." if smooth else GUARDS[key].meaning if key in GUARDS else _HELD_OUT
    ends = ", ".join(f"{values_S[-1]:.3g}" for _, values_S, _ in curves)
    return Figure(title, caption, f"{title} of {len(curves)} runs, which end at {ends}.", _draw_lines(title, curves))


def _repeats_its_reward(key: str, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a metric always equals its reward's score."""
    reward, _, metric = key.partition("/")
    present = [line["present"] for line in lines]
    return bool(metric) and all(one.get(key) == one.get(reward) for one in present)


def _points(lines: Sequence[Mapping[str, Any]], side: str, key: str) -> NDArray[np.float64]:
    """The steps and the values of a number, (2, S)."""
    points = [(line["step"], line[side][key]) for line in lines if key in line.get(side, {})]
    return np.array(points, dtype=np.float64).T


def read_points(lines: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """The steps and the values of a number, (2, S), or (0,) if no line has it.

    Raises:
        ValueError, TypeError, OverflowError: one of them is no number.
    """
    points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    return np.array(points, dtype=np.float64).T


def _figure(title: str, caption: str, metrics: Sequence[Mapping[str, Any]], key: str) -> Figure:
    steps_S, values_S = read_points(metrics, key)
    mean_S = running_mean(values_S, max(1, len(values_S) // 12))
    alt = f"{title} over {len(metrics)} steps: the running mean goes from {mean_S[0]:.3g} to {mean_S[-1]:.3g}."
    return Figure(title, caption, alt, _draw(title, steps_S, values_S, mean_S))


def running_mean(values_S: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean over the `window` values around each value; over fewer at both ends."""
    half = window // 2
    return np.array([values_S[max(0, i - half) : i + half + 1].mean() for i in range(len(values_S))])


def _draw_lines(title: str, curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], str]]) -> Markup:
    """Draws steps and values of several curves, each in its colour."""
    with _canvas(title) as (canvas, axes):
        for steps_S, values_S, color in curves:
            axes.plot(steps_S, values_S, color=color, linewidth=2, solid_capstyle="round")
    return _to_inline_svg(canvas.getvalue())


def _draw(
    title: str,
    steps_S: NDArray[np.float64],
    values_S: NDArray[np.float64],
    mean_S: NDArray[np.float64],
    other: NDArray[np.float64] | None = None,
    from_zero: bool = False,
) -> Markup:
    """Draws dots and a line in one colour; and, if there is one, another line (steps and values, 2 x S) in grey.

    With `from_zero` the axis begins at 0, so that a small change looks small.
    """
    with _canvas(title) as (canvas, axes):
        if from_zero:
            axes.set_ylim(0, 1.1 * max(1.0, values_S.max()))
        if other is not None:
            axes.plot(*other, "o-", color=_MUTED, markersize=3, linewidth=1.4)
        axes.plot(steps_S, values_S, "o", color=_CURVE, markersize=3, markeredgewidth=0, alpha=0.25)
        axes.plot(steps_S, mean_S, color=_CURVE, linewidth=2.2, solid_capstyle="round")
    return _to_inline_svg(canvas.getvalue())


@contextmanager
def _canvas(title: str) -> Iterator[tuple[io.StringIO, Any]]:
    """Yields where the SVG will be after the block, and the axes to draw on within it."""
    # Not pyplot, which would look for a display and keep the figure in memory.
    import matplotlib
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10}
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=(5.4, 3.0), layout="constrained")
        axes = canvas.add_subplot()
        buffer = io.StringIO()
        yield buffer, axes
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_LINE)
        axes.tick_params(colors=_MUTED, length=0, pad=6)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("step", color=_MUTED)
        axes.margins(x=0.02, y=0.08)
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _to_inline_svg(svg: str) -> Markup:
    """The <svg> element for use in HTML: without metadata, size, namespaces and fonts."""
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
