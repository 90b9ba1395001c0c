"""Peak memory of a training step whose feature map looks at decoded images, on the CPU.

Launch: python tests/bench/bench_image_features.py [--candidates 8] [--chunk 4] [--side 32]

A generator with random weights in the SD-Turbo layout draws latents of `side` x `side`, whose images are 8 times as
wide. ViT-MAE with random weights sees the images. One group is generated, ranked, and backpropagated with K and with 2K
candidates, in chunks and whole. Each is measured in a process of its own, after a step that fills its caches: by how
much the resident memory rises, at most, during a step.

The last line compares the growth in chunks with one decoded chunk: the rise while a chunk is decoded with its graph.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hardware import describe_hardware
from support.local_ranker import LocalRanker
from support.rewards import Redness
from support.tiny.sd_turbo import write_tiny_pipeline
from support.tiny.vision import write_tiny_vit_mae


def peak_rise(work: Callable[[], Any]) -> float:
    """The most resident memory during `work`, in MiB above what there was before."""
    import psutil

    process, peaks, done = psutil.Process(), [], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.is_set():
            peaks.append(process.memory_info().rss)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return (max(peaks) - before) / 2**20


def measure(folder: Path, candidates: int, chunk: int | None, side: int) -> dict[str, float]:
    """The rises during a step, and during the decoding of one chunk with its graph."""
    import torch

    from drpo.config import LoraConfig, OptimizerConfig, TrainingConfig
    from drpo.data.prompts import PromptRecord
    from drpo.generators.sd_turbo import SDTurboGenerator
    from drpo.method.features import load_feature_map
    from drpo.method.objectives import load_objective
    from drpo.training.ranking import BackgroundRanker
    from drpo.training.trainer import DrPOTrainer

    torch.set_num_threads(1)
    generator = SDTurboGenerator.load(folder / "generator", lora=LoraConfig(rank=4))
    generator.latent_shape = (4, side, side)
    feature_map = load_feature_map("image_mae", folder / "mae", keys=["layer2_patch_mean", "layer2_cls"])
    settings = TrainingConfig(candidates=candidates, pairs=4, groups_per_step=1, chunk_size=chunk)
    with BackgroundRanker(lambda: LocalRanker("redness", Redness())) as ranker:
        trainer = DrPOTrainer(
            generator, feature_map, load_objective("drpo"), ranker, settings, OptimizerConfig(lr=1e-6)
        )
        records = [PromptRecord("a red circle")]
        trainer.run_step(records)
        step = peak_rise(lambda: trainer.run_step(records))
        latents_NChw = torch.randn(chunk or candidates, 4, side, side).requires_grad_()
        decoded = peak_rise(lambda: generator.decode_float(latents_NChw))
    return {"step": step, "decoded": decoded}


def measure_apart(folder: Path, candidates: int, chunk: int | None, side: int) -> dict[str, float]:
    """The same in a process of its own, whose memory no other measurement has touched."""
    arguments = [str(folder), str(candidates), str(chunk or 0), str(side)]
    # A freed block goes back to the system at once, so that resident memory is what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    process = subprocess.run(
        [sys.executable, __file__, "--measure", *arguments], capture_output=True, text=True, env=environment
    )
    if process.returncode:
        raise RuntimeError(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a step with an image feature map.")
    parser.add_argument("--candidates", type=int, default=8, help="K; it is also measured doubled")
    parser.add_argument("--chunk", type=int, default=4, help="training.chunk_size")
    parser.add_argument("--side", type=int, default=32, help="of the latents; images are 8 times as wide")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder, candidates, chunk, side = options.measure
        print(json.dumps(measure(Path(folder), int(candidates), int(chunk) or None, int(side))))
        return
    print(describe_hardware())
    few, many = options.candidates, 2 * options.candidates
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_pipeline(folder / "generator")
        write_tiny_vit_mae(folder / "mae")
        rises = {}
        for chunk in (options.chunk, None):
            for candidates in (few, many):
                rises[candidates, chunk] = measure_apart(folder, candidates, chunk, options.side)
                where = f"in chunks of {chunk}" if chunk else "whole"
                print(f"K = {candidates}, {where}: a step rises by {rises[candidates, chunk]['step']:.0f} MiB")
    growth = rises[many, options.chunk]["step"] - rises[few, options.chunk]["step"]
    decoded = rises[few, options.chunk]["decoded"]
    print(f"K from {few} to {many} in chunks: {growth:+.0f} MiB; one decoded chunk with its graph: {decoded:.0f} MiB")
    if growth > decoded:
        sys.exit("the step grows by more than one decoded chunk")


if __name__ == "__main__":
    main()
