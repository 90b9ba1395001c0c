"""Show the progress of a run: a bar on a terminal, or a line every few seconds in a log."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from drpo.config import Config

SECONDS_BETWEEN_LINES = 10.0


class TrainingProgress:
    """Shows the steps, rewards, loss and images per second of a run, and the time left.

    Use it in a `with` block, and call it with the metrics of each step. The reward means are smoothed, because a single
    step has only a few prompts.
    """

    def __init__(self, config: Config, console: Console) -> None:
        self._steps = config.training.steps
        self._max_seconds = config.training.max_seconds
        self._rewards: dict[str, float] = {}
        self._console = console
        self._next_line = 0.0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
        )
        self._task = self._bar.add_task("starting workers", total=1.0, numbers="", left="")

    def __call__(self, metrics: dict[str, Any]) -> None:
        """Shows the metrics of one step."""
        step, seconds = metrics["step"], metrics["time_s"]
        fraction, left = step / self._steps, seconds / step * (self._steps - step)
        if self._max_seconds is not None:
            fraction = max(fraction, min(1.0, seconds / self._max_seconds))
            left = min(left, max(0.0, self._max_seconds - seconds))
        for key, value in metrics.items():
            if key.startswith("reward/"):
                name = key.removeprefix("reward/")
                self._rewards[name] = 0.9 * self._rewards.get(name, value) + 0.1 * value
        parts = [
            f"step {step}",
            *(f"{name} {mean:.3f}" for name, mean in self._rewards.items()),
            f"{metrics['nearer_to_chosen']:.0%} nearer to chosen" if "nearer_to_chosen" in metrics else "",
            "" if metrics["loss"] is None else f"loss {metrics['loss']:.3g}",
            f"{metrics['images_per_s']:.0f} images/s",
            f"{metrics['groups_dropped']} groups dropped" if metrics["groups_dropped"] else "",
        ]
        numbers = "  ".join(part for part in parts if part)
        clock = f"{int(left) // 60}:{int(left) % 60:02d} left"
        if self._console.is_terminal:
            self._bar.update(self._task, description="training", completed=fraction, numbers=numbers, left=clock)
        elif time.monotonic() >= self._next_line or step == self._steps:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            self._console.print(Text(f"training  {fraction:4.0%}  {numbers}  {clock}"), soft_wrap=True)

    def show_evaluation(self, evaluation: dict[str, Any]) -> None:
        """Shows what an evaluation during training found, or why it failed."""
        if "error" in evaluation:
            text = f"the evaluation at step {evaluation['step']} failed: {evaluation['error']}"
        else:
            numbers = (f"{name} {value:.3f}" for name, value in evaluation["present"].items())
            text = f"evaluation at step {evaluation['step']}: {', '.join(numbers)}"
        self._console.print(Text(text), soft_wrap=True)

    def show_encoding(self, preferences: int) -> None:
        """Shows how many preferences of an offline run are encoded."""
        text = f"encoding images: {preferences} preferences done"
        if self._console.is_terminal:
            self._bar.update(self._task, description=text)
        else:
            self._console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()
