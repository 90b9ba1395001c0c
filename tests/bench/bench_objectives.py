"""Compare a training step of DrPO with one of each baseline that follows no gradient of a reward.

Launch: python tests/bench/bench_objectives.py [--candidates 24] [--rounds 15] [--threads 1]

Each objective has its preset of `shapes`, a generator of its own, and one group in a step, with the same prompts and as
many images to rank. Steps alternate in one process. The script prints the median processor time of a step, which
other work on the machine changes less than the time that passes, and

    ratio            DrPO / the cheapest of the others, which should be at most 1.1. The GenEval reward of `shapes`
                     ranks in the same process; of images that it holds equal the brighter one is better.
    without ranking  the same without the time of the reward, as if another machine had it
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
import torch
from hardware import describe_hardware

from drpo.config import load_config
from drpo.profiling.no_rewards import BrightnessRanker
from drpo.profiling.profile import open_trainer
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.geneval.reward import GenevalReward


class GenevalRanker(BrightnessRanker):
    """Ranks with the reward that the presets train with, and keeps the processor time of each group."""

    seconds: ClassVar[list[float]] = []

    def __init__(self) -> None:
        self._reward = GenevalReward(detector="shapes")

    def score(self, prompt: str, images: np.ndarray, metadata: dict[str, Any] | None) -> list[float]:
        started = time.thread_time()  # with more than one thread, without torch's other ones
        scores = self._reward.score([ScoreItem(image, prompt, metadata) for image in images])
        self.seconds.append(time.thread_time() - started)
        return [score.value + 1e-6 * float(image.mean()) for score, image in zip(scores, images, strict=True)]


PRESETS = {"DrPO": "shapes", "DPO": "shapes-dpo", "PSO": "shapes-pso", "GRPO": "shapes-grpo"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    share = ["training.num_workers=1", "training.groups_per_step=1", "model.device=cpu"]
    share.append(f"training.candidates={arguments.candidates}")
    seconds: dict[str, list[float]] = {name: [] for name in PRESETS}
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(open_trainer(load_config(preset, share), GenevalRanker))
            for name, preset in PRESETS.items()
        }
        for passed in range(arguments.rounds + 2):
            for name, (trainer, order, _) in opened.items():
                started = time.process_time()
                line = trainer.run_step(*trainer.take_prompts(order))
                if line["groups_dropped"] or line["groups_tied"] or line["images"] != arguments.candidates:
                    raise SystemExit(f"{name}: a group of {line['images']} images was not ranked as a whole")
                if passed >= 2:  # the first passes warm up
                    seconds[name].append(time.process_time() - started)
    print(describe_hardware())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ranking_s = statistics.median(GenevalRanker.seconds)
    print(f"ranking: {ranking_s:.3f} s of each")
    for name, median in medians.items():
        print(f"{name}: {median:.3f} s")
    cheapest = min((name for name in medians if name != "DrPO"), key=lambda name: medians[name])
    ratio, without = ((medians["DrPO"] - less) / (medians[cheapest] - less) for less in (0, ranking_s))
    print(f"ratio {ratio:.2f} (DrPO / {cheapest}), without ranking {without:.2f}")


if __name__ == "__main__":
    main()
