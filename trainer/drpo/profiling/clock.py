"""Adds up what happens between the ends of phases: seconds, and if they are counted, operations, bytes and memory."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from drpo.profiling.counting import OperationMeter, count_flops
from drpo.training.phases import Phase, listening

OTHER = "other"
"""What is in no phase: noise, seeds, bookkeeping."""


class PhaseClock:
    """Listens to the phases of steps on one device. A GPU is waited for at each end, so that its work counts there.

    Args:
        device: of the generator.
        counts: also count operations, bytes and memory, which makes the seconds useless.

    Attributes:
        seconds, flops, moved: of each phase, added over the steps.
        peaks: the most bytes of memory in each phase: on a GPU all that torch has allocated, on a CPU the tensors that
            the steps have made.
        steps: how many steps were measured.
    """

    def __init__(self, device: torch.device, *, counts: bool = False) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.flops: dict[str, int] = defaultdict(int)
        self.moved: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = defaultdict(int)
        self.steps = 0
        self._device = device
        self._flops = count_flops() if counts else None
        self._meter = OperationMeter(device) if counts else None
        self._running: list[str] = []
        self._last = (0.0, 0, 0)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measures the steps that run within the block."""
        with ExitStack() as stack:
            for mode in (self._flops, self._meter):
                if mode is not None:
                    stack.enter_context(mode)
            stack.enter_context(listening(self))
            self._running = [OTHER]
            self._restart()
            yield
            self._add()
            self.steps += 1

    def begin(self, phase: Phase) -> None:
        """A phase begins."""
        self._add()
        self._running.append(phase)
        self._restart()

    def end(self) -> None:
        """The phase that began last ends."""
        self._add()
        self._running.pop()
        self._restart()

    def _add(self) -> None:
        """Adds what has happened since the last call of `_restart` to the phase that runs."""
        phase, now = self._running[-1], self._read()
        seconds, flops, moved = (new - old for new, old in zip(now, self._last, strict=True))
        self.seconds[phase] += seconds
        self.flops[phase] += int(flops)
        self.moved[phase] += int(moved)
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = self._meter.peak if self._meter is not None else 0
        self.peaks[phase] = max(self.peaks[phase], peak)

    def _restart(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        if self._meter is not None:
            self._meter.reset_peak()
        self._last = self._read()

    def _read(self) -> tuple[float, int, int]:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        flops = self._flops.get_total_flops() if self._flops is not None else 0
        return time.perf_counter(), flops, self._meter.moved if self._meter is not None else 0
