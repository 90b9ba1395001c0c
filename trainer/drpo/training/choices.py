"""What a run chooses for itself on its first start, and keeps in `choices.json`: a resumed run computes as before.

`training.memory: auto` chooses how the memory of a step is saved, from an estimate of each way;
`training.decode_chunk: auto` how many images are decoded at once, from a short measurement. Settings may leave the
mixture of rewards to the service (`mixture.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from pydantic import BaseModel

from drpo.config import Config
from drpo.generators.base import OneStepGenerator
from drpo.training import collective
from drpo.training.files import write_text
from drpo.training.memory import MemoryEstimate, estimate_memory

CHOICES_FILE = "choices.json"
MEASURE_SECONDS = 10.0


@dataclass(frozen=True)
class MemoryChoice:
    """One way to save memory, and what a step then takes."""

    gradient_checkpointing: bool
    chunk_size: int | None
    estimate: MemoryEstimate

    @property
    def way(self) -> str:
        """The way in words."""
        way = "the graph is held" if self.chunk_size is None else f"generated twice, {self.chunk_size} at a time"
        return f"{way}{', with gradient checkpointing' if self.gradient_checkpointing else ''}"


def choose_memory(config: Config, available: int) -> MemoryChoice:
    """The fastest way whose estimate fits into so many bytes; the one that takes least if none fits.

    The order is that of the measurements on an H100 (deploy/GPU.md): the graph held, gradient checkpointing, and only
    then generating twice, in chunks as large as possible.

    Raises:
        ModelLoadError, UnsupportedModelError: see `estimate_memory`.
    """
    for checkpointing, chunk_size in _ways(config.training.candidates):
        choice = MemoryChoice(checkpointing, chunk_size, estimate_memory(_with_way(config, checkpointing, chunk_size)))
        if choice.estimate.total <= available:
            break
    return choice


def settle_memory(config: Config, run_dir: Path, device: torch.device) -> Config:
    """The config with `model.gradient_checkpointing` and `training.chunk_size` as chosen for `training.memory: auto`.

    Every worker must call this. The smallest device decides for all.
    """
    if config.training.memory is None:
        return config
    available = min(collective.gather(_available(device, config.training.num_workers)))

    def choose() -> dict[str, Any]:
        choice = choose_memory(config, available)
        chosen = {"gradient_checkpointing": choice.gradient_checkpointing, "chunk_size": choice.chunk_size}
        return {**chosen, "why": f"{choice.way}: {choice.estimate}; {available / 2**30:.1f} GiB were free"}

    chosen = remember(run_dir, "memory", choose)
    return _with_way(config, chosen["gradient_checkpointing"], chosen["chunk_size"])


def settle_decoding(config: Config, run_dir: Path, generator: OneStepGenerator) -> None:
    """Sets how many images the generator decodes at once. Every worker must call this."""
    chunk = config.training.decode_chunk
    if chunk == "auto":
        chunk = remember(run_dir, "decode_chunk", lambda: measure_decode_chunk(generator, config.training.candidates))
    generator.decode_chunk = int(chunk)


@torch.no_grad()
def measure_decode_chunk(generator: OneStepGenerator, most: int, seconds: float = MEASURE_SECONDS) -> int:
    """The number of images (1, 2, 4, ... up to `most`) that are decoded fastest at once, and fit into memory.

    Args:
        generator: decodes.
        most: the largest number.
        seconds: no further number is tried after so long.
    """
    noise_NChw = generator.noise(most, torch.Generator().manual_seed(0))
    started, best, earlier = time.perf_counter(), 1, generator.decode_chunk
    best_s = float("inf")
    sizes = [2**power for power in range(most.bit_length()) if 2**power < most] + [most]
    try:
        for size in sizes:
            generator.decode_chunk = size
            try:
                for _ in range(2):  # the first pass chooses algorithms and takes memory
                    begun = time.perf_counter()
                    generator.decode(noise_NChw[:size])
                    if noise_NChw.is_cuda:
                        torch.cuda.synchronize(noise_NChw.device)  # a GPU is given its work before it does it
                    image_s = (time.perf_counter() - begun) / size
            except torch.OutOfMemoryError:
                break
            if image_s < best_s:
                best, best_s = size, image_s
            if time.perf_counter() - started > seconds:
                break
    finally:
        generator.decode_chunk = earlier
    return best


def describe_choices(run_dir: Path) -> Iterator[str]:
    """A line for each choice of a run."""
    choices = read_choices(run_dir)
    if "memory" in choices:
        yield f"training.memory auto: {choices['memory']['why']}"
    if "decode_chunk" in choices:
        yield f"training.decode_chunk auto: {choices['decode_chunk']} at once were the fastest"


def _ways(candidates: int) -> Iterator[tuple[bool, int | None]]:
    """Gradient checkpointing, and the size of chunks, from the fastest way to the one that takes least."""
    yield False, None
    yield True, None
    for checkpointing in (False, True):
        size = candidates
        while size > 1:
            size = -(-size // 2)
            yield checkpointing, size


def _with_way(config: Config, checkpointing: bool, chunk_size: int | None) -> Config:
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"gradient_checkpointing": checkpointing}),
            "training": config.training.model_copy(update={"chunk_size": chunk_size}),
        }
    )


def _available(device: torch.device, workers: int) -> int:
    """The free bytes of a GPU, or a worker's share of those of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // workers  # what files are cached in counts, because it is given up


def remember(run_dir: Path, name: str, choose: Any) -> Any:
    """An earlier choice of the run, or a new one of the first worker, on every worker."""

    def first() -> Any:
        if collective.rank() != 0:
            return None
        choices = read_choices(run_dir)
        if name not in choices:
            choices[name] = choose()
            write_text(run_dir / CHOICES_FILE, json.dumps(choices, indent=2) + "\n")
        return choices[name]

    return collective.gather(collective.call_together(first))[0]


def read_choices(run_dir: Path) -> dict[str, Any]:
    """The choices that a run has made; none if the file is damaged."""
    try:
        choices = json.loads((run_dir / CHOICES_FILE).read_text(encoding="utf-8"))
        read = _Choices.model_validate(choices).model_dump()
        return {name: choice for name, choice in read.items() if choice is not None}
    except (OSError, ValueError, RecursionError):
        return {}


class _Memory(BaseModel):
    gradient_checkpointing: bool
    chunk_size: int | None
    why: str


class _Choices(BaseModel):
    """What choices.json holds."""

    memory: _Memory | None = None
    decode_chunk: int | None = None
    mixture: dict[str, Any] | None = None
