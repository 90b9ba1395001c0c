"""Compare training steps with pipelined and with serial ranking, for rewards as slow as the step.

Launch: python tests/bench/bench_pipeline.py [--tiny]

The embedded generator is trained, a served reward sleeps for 0.5, 1 and 2 times as long as computing a group takes, and
steps without the pipeline, with it, and with `training.staleness: 1` alternate. The script prints

    ratio           serial step / pipelined step
    overlap         pipelined step / the longer of computing and ranking
    of the least    pipelined step / the least that it can take, which should be at most 1.05. While the first group is
                    generated and the last one backpropagated, nothing can be ranked that comes from the same weights
    with staleness  step whose first groups are ranked during the step before / pipelined step: below 1 is a gain
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/, for `support`

from drpo.cluster.connect import connect_ray
from drpo_rewards.rewards.base import Score, ScoreItem

FACTORS = (0.5, 1.0, 2.0)


class Slow:
    """Prefers red, and sleeps for as long as the request says, like a large model on another machine."""

    version = "slow-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        import time

        time.sleep(float((items[0].metadata or {}).get("sleep_s", 0.0)))
        return [Score(float(item.image[..., 0].mean())) for item in items]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="steps of each kind")
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

        def trainer(**changes: Any) -> DrPOTrainer:
            settings = config.training.model_copy(update=changes)
            return DrPOTrainer(generator, feature_map, objective, ranker, settings, config.optimizer)

        serial, pipelined, stale = trainer(pipeline=False), trainer(), trainer(staleness=1)

        def step(which: DrPOTrainer, sleep_s: float) -> dict[str, float]:
            records = [PromptRecord(f"a photo of a circle {n}", {"sleep_s": sleep_s}) for n in range(arguments.groups)]
            return which.run_step(records, records if which is stale else ())["seconds"]

        for _ in range(2):  # warm up
            step(serial, 0.0)
        free_s = statistics.median(step(serial, 0.0)["total"] for _ in range(3)) / arguments.groups
        print(f"a step has {arguments.groups} groups of {candidates}")
        for factor in FACTORS:
            seconds: dict[str, list[float]] = {name: [] for name in ("compute", "rank", "serial", "pipelined", "stale")}
            for _ in range(arguments.rounds):  # alternating, so that a busy machine slows down all in the same way
                free, slow = step(serial, 0.0), step(serial, factor * free_s)
                seconds["compute"].append(free["total"] - free["rank_wait"])
                seconds["rank"].append(slow["rank_wait"])
                seconds["serial"].append(slow["total"])
                seconds["pipelined"].append(step(pipelined, factor * free_s)["total"])
                step(stale, factor * free_s)  # so that its early groups are still being ranked when the next one begins
                seconds["stale"].append(step(stale, factor * free_s)["total"])
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            compute, rank, pipelined_s = medians["compute"], medians["rank"], medians["pipelined"]
            least = max(compute, rank + compute / arguments.groups)
            print(
                f"ranking {factor:g} times the step: "
                + ", ".join(f"{n} {s:.2f} s" for n, s in medians.items())
                + f"; ratio {medians['serial'] / pipelined_s:.2f}, overlap {pipelined_s / max(compute, rank):.2f}, "
                f"of the least {pipelined_s / least:.2f}, with staleness {medians['stale'] / pipelined_s:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
