"""The peaks of the card, to which the other parts compare themselves."""

from __future__ import annotations

import torch
from bench.gpu.measure import Bench, matmul_tflops, median_seconds


def run(bench: Bench) -> None:
    """Measures a large matrix product, and a copy within the card's memory."""
    side = 256 if bench.small else 8192
    name = str(bench.dtype).removeprefix("torch.")
    tflops = matmul_tflops(bench.device, bench.small)
    bench.record.row("peaks", what=f"{side}x{side}x{side} matrix product, {name}", value=tflops, unit="TFLOP/s")
    numbers = (1 << 20) if bench.small else (1 << 30)
    source, target = (torch.ones(numbers, device=bench.device) for _ in range(2))
    seconds = median_seconds(lambda: target.copy_(source), repeats=10)
    moved = 2 * source.numel() * source.element_size()  # read once, written once
    bench.record.row("peaks", what="copy within memory, reads and writes", value=moved / seconds / 1e12, unit="TB/s")
