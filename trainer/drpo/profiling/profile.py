"""Runs a few steps of a config in this process, and measures them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from drpo.config import Config
from drpo.data.prompts import PromptOrder
from drpo.profiling.clock import PhaseClock
from drpo.training.choices import describe_choices, settle_decoding, settle_memory
from drpo.training.parts import build_parts, make_trainer, supervise
from drpo.training.phases import Phase, listening
from drpo.training.ranking import Ranker
from drpo.training.trainer import DrPOTrainer


@dataclass(frozen=True)
class PhaseCost:
    """What one phase of a step costs.

    Attributes:
        seconds: the mean over the timed steps.
        flops, moved: floating point operations, and bytes that operations read and write.
        peak: the most bytes of memory, see `drpo.profiling.clock.PhaseClock`.
    """

    seconds: float
    flops: int
    moved: int
    peak: int


@dataclass(frozen=True)
class Profile:
    """What a step costs.

    Attributes:
        phases: in the order in which they first began.
        step_s: seconds of a step that nobody measures, the median.
        rank_s: seconds from sending a group for ranking to its answer, the mean; 0 if nobody ranks.
        images: of a step.
        choices: a line for each setting that is `auto`.
    """

    phases: dict[str, PhaseCost]
    step_s: float
    rank_s: float
    images: int
    choices: list[str]


def profile(config: Config, steps: int, make_ranker: Callable[[], Ranker], trace: Path | None = None) -> Profile:
    """Measures training steps of a config.

    Args:
        config: its settings, with `model.device` and absolute paths. A step has `training.groups_per_step` groups.
        steps: how many are timed, and how many run undisturbed. Two more warm up and count operations.
        make_ranker: makes what ranks, if the candidates are ranked.
        trace: a file for torch's trace of one more step, in Chrome's format.
    """
    with open_trainer(config, make_ranker) as (trainer, order, choices):
        device = next(iter(trainer.parameters)).device

        def run_step() -> dict[str, Any]:
            return trainer.run_step(*trainer.take_prompts(order))

        run_step()  # warms up
        timed, counted, lines = PhaseClock(device), PhaseClock(device, counts=True), []
        for _ in range(steps):
            with timed.step():
                run_step()
            lines.append(run_step())
        with counted.step():
            run_step()
        if trace is not None:
            _write_trace(run_step, trace, device)
    phases = {
        phase: PhaseCost(timed.seconds[phase] / steps, counted.flops[phase], counted.moved[phase], counted.peaks[phase])
        for phase in timed.seconds
    }
    groups = sum(line["groups"] for line in lines)
    return Profile(
        phases,
        statistics.median(line["seconds"]["total"] for line in lines),
        sum(line["seconds"]["rank"] for line in lines) / groups,
        lines[-1]["images"],
        choices,
    )


@contextmanager
def open_trainer(
    config: Config, make_ranker: Callable[[], Ranker]
) -> Iterator[tuple[DrPOTrainer, PromptOrder, list[str]]]:
    """A trainer of a config, as a worker of a run makes it, the order of the prompts, and what was chosen."""
    with TemporaryDirectory() as folder, ExitStack() as stack:  # choices are made as in a run, but not kept
        config = settle_memory(config, Path(folder), torch.device(config.model.device))
        parts = build_parts(config, config.model.device)
        settle_decoding(config, Path(folder), parts.generator)
        supervision, order = supervise(config, parts.generator, make_ranker, stack)
        yield make_trainer(config, "profile", parts, supervision), order, list(describe_choices(Path(folder)))


def _write_trace(run_step: Callable[[], Any], path: Path, device: torch.device) -> None:
    from torch.profiler import ProfilerActivity

    class Marks:
        """Names the phases in the trace."""

        def __init__(self) -> None:
            self._open: list[Any] = []

        def begin(self, phase: Phase) -> None:
            self._open.append(torch.profiler.record_function(phase))
            self._open[-1].__enter__()

        def end(self) -> None:
            self._open.pop().__exit__(None, None, None)

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with torch.profiler.profile(activities=activities) as recorded, listening(Marks()):
        run_step()
    recorded.export_chrome_trace(str(path))


def measure_matmul_peak(device: torch.device, dtype: torch.dtype, *, threads: int = 1) -> float:
    """The floating point operations a second of a product of two large random matrices, the best of a few."""
    side = 8192 if device.type == "cuda" else 1024
    torch.set_num_threads(threads)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)
