"""Optional ways to compute faster, each against the plain step; and where a step makes the program wait for the GPU.

A wait is a call that returns only when the GPU has done all that it was given before, such as `.item()`. While the
program waits it gives the GPU nothing to do, so a step should have none but one for its metrics. torch reports waits,
but not those for an event, such as the one after which a step's pictures are there.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from bench.gpu.checkpoints import PROMPT, generator_folder
from bench.gpu.generator import CANDIDATES, load_map, step_settings, time_steps, trainer_of
from bench.gpu.measure import Bench, median_seconds, peak_gb, reset_peak

from drpo.config import LoraConfig, OptimizerConfig
from drpo.data.prompts import PromptRecord
from drpo.generators import load_generator
from drpo.training.speed import speed_up

AT_ONCE = (1, 4, 8, 24)
GROUPS = 2  # the second one is generated while the first is ranked


@dataclass(frozen=True)
class Way:
    """A way to compute a step.

    Attributes:
        name: how the report calls it.
        training: settings of the section `training`.
        fused: the setting `optimizer.fused`.
        decode_chunk: images that are decoded at once; None: as by default.
    """

    name: str
    training: dict[str, Any] = field(default_factory=dict)
    fused: bool = False
    decode_chunk: int | None = None


WAYS = (
    Way("as by default"),
    Way("optimizer.fused", fused=True),
    Way("training.tf32", {"tf32": True}),
    Way("training.decode_chunk: 24", decode_chunk=24),
    Way("training.channels_last", {"channels_last": True}),
    Way("training.compile", {"compile": True}),  # takes longest, and cannot be undone
)


def run(bench: Bench) -> None:
    """Measures with SD-Turbo."""
    folder = generator_folder(bench, "sd_turbo")
    generator: Any = load_generator(folder, device=bench.device, dtype=bench.dtype, lora=LoraConfig())
    feature_map = load_map(bench, "sd_turbo").map
    measure_waits(bench, generator, feature_map)
    for layout in ("contiguous", "channels last"):
        if layout == "channels last":
            speed_up(generator, step_settings(channels_last=True))
        measure_decoding(bench, generator, layout)
    measure_ways(bench, generator, feature_map)


def measure_waits(bench: Bench, generator: Any, feature_map: Any) -> None:
    """One row for each line of code at which a step waits for the GPU, and one for all."""
    if bench.device != "cuda":
        bench.record.note("Waits are counted on a GPU only.")
        return
    records = [PromptRecord(PROMPT, {})] * GROUPS
    with trainer_of(generator, feature_map, step_settings(GROUPS)) as trainer:
        trainer.run_step(records)  # the first one chooses algorithms, and encodes the prompt
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                trainer.run_step(records)
            finally:
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


def measure_ways(bench: Bench, generator: Any, feature_map: Any) -> None:
    """The seconds of a step by each way, against the first one. On a CPU compiling takes minutes, so it is left out."""
    default, plain_s = generator.decode_chunk, None
    for way in WAYS:
        if bench.small and "compile" in way.training:
            continue
        for network in generator.networks:
            network.to(memory_format=torch.contiguous_format)
        torch.set_float32_matmul_precision("highest")
        settings = step_settings(GROUPS, **way.training)
        speed_up(generator, settings)
        generator.decode_chunk = way.decode_chunk or default
        reset_peak()
        with trainer_of(generator, feature_map, settings, OptimizerConfig(fused=way.fused)) as trainer:
            first_s, seconds = time_steps(trainer, 1 if bench.small else 3)
        plain_s = plain_s or seconds
        bench.record.row(
            "steps of two groups of 24",
            choice=way.name,
            seconds_a_step=seconds,
            of_the_default=seconds / plain_s,
            seconds_of_the_first=first_s,
            decoded_at_once=generator.decode_chunk,
            peak_GB=peak_gb(),
        )
