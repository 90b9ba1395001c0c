"""A training step by stages, and what the ways to save memory cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from bench.gpu.checkpoints import PROMPT, generator_folder, latent_mae_folder, latent_mae_keys
from bench.gpu.measure import Bench, Clock, out_of_memory, peak_gb, reset_peak
from bench.gpu.runner import SkippedError
from support.local_ranker import LocalRanker

from drpo.config import LoraConfig, OptimizerConfig, TrainingConfig
from drpo.data.prompts import PromptRecord
from drpo.errors import UnsupportedModelError
from drpo.generators import load_generator
from drpo.method.features import load_feature_map
from drpo.method.features.base import FeatureContext
from drpo.method.objectives import load_objective
from drpo.method.objectives.base import Group
from drpo.training.ranking import BackgroundRanker
from drpo.training.trainer import DrPOTrainer
from drpo_rewards.rewards.base import Score, ScoreItem

CANDIDATES, PAIRS = 24, 12
STAGES = ("text encode", "generate", "decode", "reference", "features", "loss build", "backward", "optimizer")
CHUNKS = (4, 8, 12)


class Redness:
    """A reward that takes no time."""

    version = "redness-1"

    def score(self, items: list[ScoreItem]) -> list[Score]:
        return [Score(float(item.image[..., 0].mean())) for item in items]


def run(bench: Bench, kind: str) -> None:
    """Measures one kind of generator.

    Raises:
        SkippedError: the project has no such generator.
    """
    if find_spec(f"drpo.generators.{kind}") is None:
        raise SkippedError(f"there is no drpo.generators.{kind}")
    try:
        generator: Any = load_generator(
            generator_folder(bench, kind), device=bench.device, dtype=bench.dtype, lora=LoraConfig()
        )
    except UnsupportedModelError as error:
        raise SkippedError(str(error)) from error
    feature_map = load_map(bench, kind)
    parameters = sum(parameter.numel() for parameter in generator.unet.parameters())
    trained = sum(parameter.numel() for parameter in generator.adapter.parameters())
    bench.record.note(
        f"U-Net {(parameters - trained) / 1e6:.1f}M parameters, adapter {trained / 1e6:.1f}M, in {bench.dtype}; "
        f"{CANDIDATES} candidates of {generator.image_size[0]}x{generator.image_size[1]}, {PAIRS} pairs; "
        f"features: {feature_map.name}."
    )
    peak = bench.peak_tflops()
    measure_stages(bench, generator, feature_map.map, peak)
    measure_memory_choices(bench, generator, feature_map.map)


class NamedMap:
    """A feature map, and what the report calls it."""

    def __init__(self, name: str, feature_map: Any) -> None:
        self.name = name
        self.map = feature_map


def load_map(bench: Bench, kind: str) -> NamedMap:
    """The latent-MAE for SD-Turbo. It does not know the latents of SDXL-Turbo: for these, their own statistics."""
    if kind == "sd_turbo":
        keys = latent_mae_keys(bench)
        mae = load_feature_map("latent_mae", latent_mae_folder(bench), keys=tuple(keys), device=bench.device)
        millions = sum(parameter.numel() for parameter in mae.model.parameters()) / 1e6
        return NamedMap(f"latent-MAE of {millions:.0f}M in float32, {len(keys)} keys", mae)
    keys = ["latent_mean", "latent_std", "latent_mean_4", "latent_std_4"]
    return NamedMap("statistics of the latents", load_feature_map("raw_latent", None, keys=tuple(keys)))


def measure_stages(bench: Bench, generator: Any, feature_map: Any, peak_tflops: float) -> None:
    """One table per way that fits: the graph held whole, or gradient checkpointing."""
    for checkpointing in (False, True):
        set_checkpointing(generator, checkpointing)
        title = "stages, gradient checkpointing" if checkpointing else "stages, graph held whole"
        optimizer = torch.optim.AdamW(generator.adapter.parameters(), lr=1e-5)
        clock, counted = Clock(), Clock(flops=True)
        peaks: dict[str, float | None] = {}
        try:
            for passed in range(2 if bench.small else 4):
                if passed == 1:
                    clock = Clock()
                one_update(generator, feature_map, optimizer, clock, peaks)
            one_update(generator, feature_map, optimizer, counted, {})
        except torch.OutOfMemoryError:
            bench.record.row(title, stage="whole step", seconds="does not fit into memory")
            optimizer.zero_grad(set_to_none=True)
            continue
        seconds = clock.medians()
        rows = {stage: (seconds[stage], counted.flops_of[stage], peaks[stage]) for stage in STAGES}
        rows["whole step"] = (sum(seconds.values()), sum(counted.flops_of.values()), _largest(peaks))
        for stage, (second, flops, gb) in rows.items():
            bench.record.row(
                title,
                stage=stage,
                seconds=second,
                share=second / sum(seconds.values()),
                TFLOPs=flops / 1e12,
                of_matmul_peak=flops / 1e12 / second / peak_tflops,
                peak_GB=gb,
            )


def one_update(generator: Any, feature_map: Any, optimizer: Any, clock: Clock, peaks: dict[str, float | None]) -> None:
    """One group and one update, as `drpo.training.step.StepRunner` does it, without the ranking."""
    objective = load_objective("drpo")

    def timed(stage: str) -> Any:
        return _Stage(stage, clock, peaks)

    with timed("text encode"), torch.no_grad():
        conditions = generator.encode_prompts([PROMPT])
    context = FeatureContext(conditions)
    noise_NChw = generator.noise(CANDIDATES, torch.Generator().manual_seed(0))
    with timed("generate"):
        latents_NChw = generator.sample(noise_NChw, conditions)
    with timed("decode"):
        images_NHWC = generator.decode(latents_NChw.detach())
    with timed("reference"), torch.no_grad(), generator.reference():
        reference_NChw = generator.sample(noise_NChw, conditions)
    with timed("features"):
        features = feature_map.of_latents(latents_NChw, context)
        with torch.no_grad():
            reference = feature_map.of_latents(reference_NChw, context)
    order = np.argsort(images_NHWC[..., 0].mean(axis=(1, 2)))
    pairs_M2 = torch.tensor(np.stack([order[::-1][:PAIRS], order[:PAIRS]], axis=1))
    group = Group(features=features, reference_features=reference, pairs_M2=pairs_M2)
    with timed("loss build"):
        loss = objective.loss(group).loss
    with timed("backward"):
        loss.backward()
    with timed("optimizer"):
        torch.nn.utils.clip_grad_norm_(generator.adapter.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class _Stage:
    """Times one stage, and keeps its peak of memory."""

    def __init__(self, stage: str, clock: Clock, peaks: dict[str, float | None]) -> None:
        self._stage, self._peaks = stage, peaks
        self._timer = clock(stage)

    def __enter__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._timer.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._timer.__exit__(*exception)
        self._peaks[self._stage] = peak_gb()


def measure_memory_choices(bench: Bench, generator: Any, feature_map: Any) -> None:
    """Whole steps of the trainer: the graph held, gradient checkpointing, and generating twice in chunks."""
    choices = [("graph held whole", False, None), ("gradient checkpointing", True, None)]
    choices += [(f"generated twice, chunks of {chunk}", False, chunk) for chunk in CHUNKS]
    choices += [("generated twice, chunks of 12, gradient checkpointing", True, 12)]
    best: tuple[float, str] | None = None
    for name, checkpointing, chunk in choices:
        set_checkpointing(generator, checkpointing)
        reset_peak()
        try:
            with trainer_of(generator, feature_map, step_settings(chunk_size=chunk)) as trainer:
                _, seconds = time_steps(trainer, 1 if bench.small else 2)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            bench.record.row("memory choices", choice=name, seconds_a_step="does not fit into memory")
            continue
        bench.record.row(
            "memory choices",
            choice=name,
            seconds_a_step=seconds,
            images_per_s=CANDIDATES / seconds,
            peak_GB=peak_gb(),
        )
        best = min(best or (seconds, name), (seconds, name))
    if best is not None:
        bench.record.note(f"The fastest way that fits: {best[1]}.")


def step_settings(groups: int = 1, **changes: Any) -> TrainingConfig:
    """Steps of so many groups, all of which are in flight."""
    sizes = {"groups_per_step": groups, "groups_in_flight": groups, "candidates": CANDIDATES, "pairs": PAIRS}
    return TrainingConfig(steps=1, **sizes, **changes)


@contextmanager
def trainer_of(
    generator: Any, feature_map: Any, settings: TrainingConfig, optimizer: OptimizerConfig | None = None
) -> Iterator[DrPOTrainer]:
    """A trainer whose reward takes no time. Its gradients are freed at the end."""
    reward = LocalRanker("redness", Redness())
    with BackgroundRanker(lambda: reward) as ranker:
        trainer = DrPOTrainer(
            generator, feature_map, load_objective("drpo"), ranker, settings, optimizer or OptimizerConfig()
        )
        try:
            yield trainer
        finally:
            trainer.optimizer.zero_grad(set_to_none=True)


def time_steps(trainer: DrPOTrainer, repeats: int) -> tuple[float, float]:
    """The seconds of the first step, and of the fastest of the others."""
    records = [PromptRecord(PROMPT, {})] * trainer.runner.settings.groups_per_step
    first, *others = (trainer.run_step(records)["seconds"]["total"] for _ in range(1 + repeats))
    return first, min(others)


def set_checkpointing(generator: Any, on: bool) -> None:
    """Switches gradient checkpointing of the U-Net."""
    if on:
        generator.unet.enable_gradient_checkpointing()
    else:
        generator.unet.disable_gradient_checkpointing()


def _largest(values: dict[str, float | None]) -> float | None:
    known = [value for value in values.values() if value is not None]
    return max(known) if known else None
