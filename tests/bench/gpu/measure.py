"""Seconds, FLOPs and memory on a GPU, or on the CPU in the small form."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from bench.gpu.record import Record, Value, read_results
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Bench:
    """What a part gets: where its checkpoints and rows go, and whether its networks are tiny."""

    out: Path
    scratch: Path
    small: bool
    record: Record

    @property
    def device(self) -> str:
        """The GPU, or the CPU of a machine without one."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 on a GPU, float32 on a CPU."""
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    def peak_tflops(self) -> float:
        """The matrix product's peak: measured by the part `peak` of this run, or now."""
        measured = read_results(self.out)["parts"].get("peak", {}).get("tables", {}).get("peaks", [])
        return measured[0]["value"] if measured else matmul_tflops(self.device, self.small)


class Clock:
    """Times the phases of a loop, each with all GPU work that it started. With `flops` it counts their FLOPs instead.

    Attributes:
        seconds: one number per phase and pass.
        flops_of: the FLOPs of each phase, if they are counted.
    """

    def __init__(self, flops: bool = False) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.flops_of: dict[str, float] = defaultdict(float)
        self._counts_flops = flops

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        counter: Any = FlopCounterMode(display=False) if self._counts_flops else nullcontext()
        synchronize()
        started = time.perf_counter()
        with counter:
            yield
        synchronize()
        self.seconds[phase].append(time.perf_counter() - started)
        if self._counts_flops:
            self.flops_of[phase] += counter.get_total_flops()

    def medians(self) -> dict[str, float]:
        """The median seconds of each phase."""
        return {phase: statistics.median(seconds) for phase, seconds in self.seconds.items()}

    def totals(self) -> dict[str, float]:
        """The sum of the seconds of each phase."""
        return {phase: sum(seconds) for phase, seconds in self.seconds.items()}


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> None:
    """Starts a new peak of memory, after freeing what nobody uses."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float | None:
    """torch's peak of GPU memory since `reset_peak`, in 10^9 bytes; None without a GPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None


def median_seconds(work: Callable[[], Any], repeats: int, warm_ups: int = 2) -> float:
    """The median time of one call, with its GPU work."""
    clock = Clock()
    for index in range(warm_ups + repeats):
        if index == warm_ups:
            clock = Clock()
        with clock("work"):
            work()
    return clock.medians()["work"]


def matmul_tflops(device: str, small: bool) -> float:
    """The rate of a product of two large random matrices: bfloat16 on a GPU, float32 on a CPU."""
    side = 256 if small else 8192
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / median_seconds(lambda: left @ right, repeats=20, warm_ups=3) / 1e12


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch found too little GPU memory."""
    return isinstance(error, torch.OutOfMemoryError)


def describe_machine() -> dict[str, Value]:
    """The card, its driver, the versions and the date."""
    facts: dict[str, Value] = {"date": time.strftime("%Y-%m-%d")}
    if torch.cuda.is_available():
        memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
        facts |= {"card": f"{torch.cuda.get_device_name()} ({memory_gb:.0f} GB)", "driver": _driver()}
    else:
        facts |= {"card": "none (CPU)"}
    for package in ("torch", "diffusers", "transformers", "peft", "ray"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "missing"
    return facts


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"
