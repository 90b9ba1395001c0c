"""Optional ways to compute faster, each against the plain step; and where a step makes the program wait for the GPU.

A wait is a call that returns only when the GPU has done all that it was given before, such as `.item()`. While the
program waits it gives the GPU nothing to do, so a step should have none but those for its pictures and its metrics.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from bench.gpu.checkpoints import PROMPT, generator_folder
from bench.gpu.generator import CANDIDATES, PAIRS, Redness, load_map
from bench.gpu.measure import Bench, median_seconds, peak_gb, reset_peak
from support.local_ranker import LocalRanker

from drpo.config import LoraConfig, OptimizerConfig, TrainingConfig
from drpo.data.prompts import PromptRecord
from drpo.generators import load_generator
from drpo.method.objectives import load_objective
from drpo.training.ranking import BackgroundRanker
from drpo.training.speed import speed_up
from drpo.training.trainer import DrPOTrainer

AT_ONCE = (1, 4, 8, 24)
GROUPS = 2


def run(bench: Bench) -> None:
    """Measures with SD-Turbo. What takes longest, compiling, comes last."""
    folder = generator_folder(bench, "sd_turbo")
    generator: Any = load_generator(folder, device=bench.device, dtype=bench.dtype, lora=LoraConfig())
    feature_map = load_map(bench, "sd_turbo").map
    measure_waits(bench, generator, feature_map)
    for layout in ("contiguous", "channels last"):
        if layout == "channels last":
            speed_up(generator, settings(channels_last=True))
        measure_decoding(bench, generator, layout)
    set_contiguous(generator)
    plain = measure_step(bench, generator, feature_map, "as by default", settings())
    for name, changes in (
        ("optimizer.fused", {}),
        ("training.tf32", {"tf32": True}),
        ("training.decode_chunk: 4", {}),
        ("training.channels_last", {"channels_last": True}),
        ("the four together", {"channels_last": True, "tf32": True}),
        ("the four together, compiled", {"channels_last": True, "tf32": True, "compile": True}),
    ):
        if bench.small and "compile" in changes:
            continue  # on a CPU this takes minutes; `make compiled` tries it
        set_contiguous(generator)
        torch.set_float32_matmul_precision("highest")
        together = name.startswith("the four")
        generator.decode_chunk = 4 if together or "decode_chunk" in name else CANDIDATES
        fused = together or "fused" in name
        measure_step(bench, generator, feature_map, name, settings(**changes), plain, fused=fused)


def settings(**changes: Any) -> TrainingConfig:
    """Steps of two groups, of which the second is generated while the first is ranked."""
    return TrainingConfig(
        steps=1, groups_per_step=GROUPS, candidates=CANDIDATES, pairs=PAIRS, groups_in_flight=2, **changes
    )


def set_contiguous(generator: Any) -> None:
    """Undoes `channels_last`."""
    for network in generator.networks:
        network.to(memory_format=torch.contiguous_format)


@contextmanager
def trainer_of(generator: Any, feature_map: Any, chosen: TrainingConfig, *, fused: bool) -> Iterator[DrPOTrainer]:
    """A trainer whose reward takes no time."""
    reward = LocalRanker("redness", Redness())
    with BackgroundRanker(lambda: reward) as ranker:
        optimizer = OptimizerConfig(fused=fused)
        trainer = DrPOTrainer(generator, feature_map, load_objective("drpo"), ranker, chosen, optimizer)
        try:
            yield trainer
        finally:
            trainer.optimizer.zero_grad(set_to_none=True)


def measure_waits(bench: Bench, generator: Any, feature_map: Any) -> None:
    """One row for each line of code at which a step waits for the GPU, and one for all."""
    records = [PromptRecord(PROMPT, {})] * GROUPS
    with trainer_of(generator, feature_map, settings(), fused=False) as trainer:
        trainer.run_step(records)  # the first one chooses algorithms, and encodes the prompt
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if bench.device == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            try:
                trainer.run_step(records)
            finally:
                if bench.device == "cuda":
                    torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
    places = Counter(f"{'/'.join(Path(wait.filename).parts[-3:])}:{wait.lineno}" for wait in waits)
    for place, count in places.most_common():
        bench.record.row("waits for the GPU in a step of two groups", place=place, waits=count)
    bench.record.row("waits for the GPU in a step of two groups", place="all", waits=len(waits))


def measure_decoding(bench: Bench, generator: Any, layout: str) -> None:
    """The decoder's seconds for all candidates, so many at once."""
    noise_NChw = generator.noise(CANDIDATES, torch.Generator().manual_seed(0))
    earlier = generator.decode_chunk
    try:
        for at_once in AT_ONCE:
            generator.decode_chunk = at_once
            reset_peak()
            seconds = median_seconds(lambda: generator.decode(noise_NChw), repeats=1 if bench.small else 5)
            bench.record.row(
                f"decoding {CANDIDATES} images", layout=layout, at_once=at_once, seconds=seconds, peak_GB=peak_gb()
            )
    finally:
        generator.decode_chunk = earlier


def measure_step(
    bench: Bench,
    generator: Any,
    feature_map: Any,
    name: str,
    chosen: TrainingConfig,
    plain: float | None = None,
    *,
    fused: bool = False,
) -> float:
    """The seconds of a step, the fastest of three; the first one is not counted, and takes long if it compiles."""
    speed_up(generator, chosen)
    reset_peak()
    records = [PromptRecord(PROMPT, {})] * GROUPS
    with trainer_of(generator, feature_map, chosen, fused=fused) as trainer:
        lines = [trainer.run_step(records) for _ in range(2 if bench.small else 4)]
    seconds = min(line["seconds"]["total"] for line in lines[1:])
    bench.record.row(
        "steps of two groups of 24",
        choice=name,
        seconds_a_step=seconds,
        of_the_default=seconds / (plain or seconds),
        seconds_of_the_first=lines[0]["seconds"]["total"],
        peak_GB=peak_gb(),
    )
    return seconds
