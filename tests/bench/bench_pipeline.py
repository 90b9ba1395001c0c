"""Compare training steps with pipelined and with serial ranking, for a reward as slow as generation.

Launch: python tests/bench/bench_pipeline.py [--tiny]

The embedded generator is trained, a served reward sleeps for as long as generating a group takes, and steps with and
without the pipeline alternate. The script prints

    ratio      serial step / pipelined step, which should be at least 1.4
    overlap    pipelined step / the longer of computing and ranking, which should be at most 1.15
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/, for `support`

from drpo.cluster.connect import connect_ray
from drpo_rewards.rewards.base import Score, ScoreItem


class Slow:
    """Prefers red, and sleeps for as long as the request says, like a large model on another machine."""

    version = "slow-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        import time

        time.sleep(float((items[0].metadata or {}).get("sleep_s", 0.0)))
        return [Score(float(item.image[..., 0].mean())) for item in items]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="steps of each kind")
    parser.add_argument("--groups", type=int, default=8, help="groups of a step")
    parser.add_argument("--tiny", action="store_true", help="a tiny random generator instead of the embedded one")
    arguments = parser.parse_args()
    connect_ray(None, cpus=4)

    import torch
    from support.tiny.sd_turbo import write_tiny_pipeline

    from drpo.config import load_config
    from drpo.data.prompts import PromptRecord
    from drpo.training.build import build_feature_map, build_generator, build_objective
    from drpo.training.ranking import BackgroundRanker
    from drpo.training.trainer import DrPOTrainer
    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.serving import ServiceConfig, start

    torch.set_num_threads(1)
    overrides = [f"training.groups_per_step={arguments.groups}", "training.candidates=24", "training.pairs=12"]
    overrides += ["training.num_workers=1"]
    if arguments.tiny:
        folder = write_tiny_pipeline(Path(tempfile.mkdtemp()) / "tiny")
        overrides += [f"model.generator={folder}", "features.name=raw_latent", "features.path=null"]
        overrides += ["features.options={}"]
    config = load_config("shapes", overrides)
    candidates = config.training.candidates
    reward = {"type": "bench_pipeline:Slow", "num_cpus": 0.1, "batch_size": candidates}  # one group at a time
    service = ServiceConfig.model_validate({"rewards": {"slow": reward}})
    generator, objective = build_generator(config), build_objective(config)
    feature_map = build_feature_map(config, objective, generator)

    with start(service) as running, BackgroundRanker(lambda: AsyncRankingClient(running.handle_address)) as ranker:

        def trainer(pipeline: bool) -> DrPOTrainer:
            settings = config.training.model_copy(update={"pipeline": pipeline})
            return DrPOTrainer(generator, feature_map, objective, ranker, settings, config.optimizer)

        pipelined, serial = trainer(True), trainer(False)

        def records(sleep_s: float) -> list[PromptRecord]:
            return [PromptRecord(f"a photo of a circle {n}", {"sleep_s": sleep_s}) for n in range(arguments.groups)]

        def steps(which: DrPOTrainer, sleep_s: float, count: int = 1) -> list[dict]:
            return [which.run_step(records(sleep_s))["seconds"] for _ in range(count)]

        steps(serial, 0.0, 2)  # warm up
        free = steps(serial, 0.0, 3)
        sleep_s = statistics.median(seconds["generate"] for seconds in free) / arguments.groups
        compute_s, ranking_s, pipelined_s, serial_s = [], [], [], []
        for _ in range(arguments.rounds):  # alternating, so that a busy machine slows down both in the same way
            compute = steps(serial, 0.0)[0]
            compute_s.append(compute["total"] - compute["rank_wait"])
            slow = steps(serial, sleep_s)[0]
            serial_s.append(slow["total"])
            ranking_s.append(slow["rank_wait"])
            pipelined_s.append(steps(pipelined, sleep_s)[0]["total"])

    compute, rank, fast, slow = map(statistics.median, (compute_s, ranking_s, pipelined_s, serial_s))
    print(f"one step of {arguments.groups} groups of {candidates}: computing {compute:.2f} s, ranking {rank:.2f} s")
    print(
        f"serial {slow:.2f} s, pipelined {fast:.2f} s: ratio {slow / fast:.2f}, overlap {fast / max(compute, rank):.2f}"
    )


if __name__ == "__main__":
    main()
