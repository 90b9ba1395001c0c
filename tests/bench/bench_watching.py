"""Compare an evaluation of 64 pictures during training with generating and ranking 64 pictures.

Launch: python tests/bench/bench_watching.py

The embedded generator is evaluated by GenEval in this process. Evaluations during training, with their guard metrics
and their grid, alternate with a plain loop that generates the same pictures and has them ranked. The script prints

    ratio      evaluation / generating and ranking, which should be at most 1.15
    of CPU     the same of this process's CPU seconds, which other work on the machine hardly changes
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/, for `support`

IMAGES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each kind")
    arguments = parser.parse_args()

    import torch
    from bench.hardware import describe_hardware
    from support.local_ranker import LocalClient

    from drpo.config import load_config
    from drpo.data.prompts import load_prompts
    from drpo.evaluation.evaluate import generate_batch
    from drpo.evaluation.plan import plan_images
    from drpo.training.build import build_feature_map, build_generator, build_objective
    from drpo.training.trainer import DrPOTrainer
    from drpo.watching import RunWatch
    from drpo_rewards.rewards.geneval.reward import GenevalReward

    torch.set_num_threads(1)
    print(describe_hardware())
    config = load_config("shapes", ["evaluation.every=1", "evaluation.every_prompts_per_task=8"])
    config.evaluation.tasks = ("two_object", "counting", "position", "color_attr")
    generator, objective = build_generator(config), build_objective(config)
    feature_map = build_feature_map(config, objective, generator)
    trainer = DrPOTrainer(generator, feature_map, objective, None, config.training, config.optimizer)
    client = LocalClient(GenevalReward())
    watch = RunWatch(config, Path(tempfile.mkdtemp()), trainer, feature_map, client)
    records = load_prompts(config.evaluation_prompts(), section="evaluation")
    planned = plan_images(records, images_per_prompt=2, prompts_per_task=8, seed=config.evaluation.seed)
    assert len(planned) == IMAGES

    def plain() -> None:
        size = config.evaluation.batch_size
        with ThreadPoolExecutor(4) as pool:
            rankings = []
            for start in range(0, IMAGES, size):
                batch = generate_batch(generator, planned[start : start + size])
                for first in range(0, len(batch.planned), 2):
                    record, pair_2HWC = batch.planned[first].record, batch.images_NHWC[first : first + 2]
                    rankings.append(
                        pool.submit(client.rank, record.prompt, pair_2HWC, metadata=record.metadata, details=True)
                    )
            for ranking in rankings:
                ranking.result()

    def watched() -> None:
        trainer.step += 1
        assert watch.visit(0.0) == ""

    def measure(call: Callable[[], None]) -> tuple[float, float]:
        started, started_cpu = time.perf_counter(), time.process_time()
        call()
        return time.perf_counter() - started, time.process_time() - started_cpu

    plain(), watched()  # the first evaluation also draws the base
    pairs = [(measure(watched), measure(plain)) for _ in range(arguments.rounds)]
    for kind, number in (("ratio", 0), ("of CPU", 1)):
        evaluation_s, plain_s = (statistics.median(pair[side][number] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(one[number] / other[number] for one, other in pairs)
        print(f"evaluation {evaluation_s:.2f} s, generating and ranking {plain_s:.2f} s: {kind} {ratio:.2f}")


if __name__ == "__main__":
    main()
