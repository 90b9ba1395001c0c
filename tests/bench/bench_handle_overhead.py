"""The time that the ranking service adds to the reward, for 24 images of 64x64.

Launch: python tests/bench/bench_handle_overhead.py

The same GenEval reward scores the same group of rendered scenes alternately in this process and through serve://. The
output is both medians and their difference, which should be at most 15 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from drpo_rewards.cluster.local_ray import start_local_ray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=24)
    arguments = parser.parse_args()
    rounds, candidates = arguments.rounds, arguments.candidates
    start_local_ray(num_cpus=4)

    import numpy as np

    from drpo.shapes.prompts import prompts
    from drpo.shapes.world import render, sample_scene
    from drpo_rewards.api.contract import PairOptions
    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.rewards.base import ScoreItem
    from drpo_rewards.rewards.geneval.reward import GenevalReward
    from drpo_rewards.serving import start

    record = prompts("validation", "two_object")[0]
    rng = np.random.default_rng(0)
    images_KHWC = np.stack([render(sample_scene(record.metadata, rng), rng) for _ in range(candidates)])
    reward = GenevalReward(detector="shapes")
    items = [ScoreItem(image, record.prompt, record.metadata) for image in images_KHWC]

    async def measure(address: str) -> tuple[list[float], list[float]]:
        client = AsyncRankingClient(address)
        direct_s, served_s = [], []
        for number in range(rounds + 10):
            started = time.perf_counter()
            reward.score(items)
            between = time.perf_counter()
            await client.rank(
                record.prompt, images_KHWC, metadata=record.metadata, pairs=PairOptions(count=12), details=True
            )
            if number >= 10:  # the first 10 rounds warm up
                direct_s.append(between - started)
                served_s.append(time.perf_counter() - between)
        await client.close()
        return direct_s, served_s

    with start("shapes") as service:
        direct_s, served_s = asyncio.run(measure(service.handle_address))
    direct_ms, served_ms = 1e3 * statistics.median(direct_s), 1e3 * statistics.median(served_s)
    overhead_ms = served_ms - direct_ms
    print(f"in this process {direct_ms:.1f} ms, through the handle {served_ms:.1f} ms, overhead {overhead_ms:.1f} ms")


if __name__ == "__main__":
    main()
