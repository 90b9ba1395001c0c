"""The parts in their order, the most important ones first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        title: its heading in the report.
        module: the module of this package whose `run(bench)` measures it.
        limit_s: seconds after which it is stopped. What it measured until then is kept.
        arguments: further arguments of `run`.
    """

    title: str
    module: str
    limit_s: float
    arguments: tuple[str, ...] = ()


PARTS = {
    "peak": Part("Peaks of the card", "peak", 30),
    "sd_turbo": Part("A training step of SD-Turbo", "generator", 100, ("sd_turbo",)),
    "sdxl_turbo": Part("A training step of SDXL-Turbo", "generator", 90, ("sdxl_turbo",)),
    "rewards": Part("The rewards", "rewards", 150),
    "figure5": Part("DrPO against reward backpropagation (figure 5)", "figure5", 90),
    "train": Part("A run of `drpo train`", "train", 160),
    "service": Part("The service", "service", 90),
    "speed": Part("Ways to compute faster", "speed", 240),
}
