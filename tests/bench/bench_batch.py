"""What a flat batch costs: 256 images with a prompt each, against one group of 256 images with one prompt.

Launch: python tests/bench/bench_batch.py

Both are scored alternately by the same service. The output is both medians and their ratio, which should be at most
1.3; above that, the exit status is 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from drpo_rewards.cluster.local_ray import start_local_ray

MOST = 1.3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=128)
    arguments = parser.parse_args()
    start_local_ray(num_cpus=4)

    import numpy as np

    from drpo_rewards import Group, RankingClient
    from drpo_rewards.serving import start

    pixels = np.random.default_rng(0).integers(0, 256, (256, arguments.side, arguments.side, 3), dtype=np.uint8)
    prompts = [f"picture {number}" for number in range(256)]
    spec = {"include": [{"class": "circle", "color": "red", "count": 2}]}

    def measure(call: Callable[[], Any]) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    worst = 0.0
    with start("shapes", http_port=0, grpc_port=0) as service:
        for address in (service.http_url, service.grpc_address):
            with RankingClient(str(address)) as client:
                seconds: dict[str, list[float]] = {"group": [], "batch": []}
                for number in range(arguments.rounds + 2):
                    group_s = measure(lambda: client.score([Group(prompts[0], pixels, spec)]))
                    batch_s = measure(lambda: client.score_batch(pixels, prompts, spec))
                    if number >= 2:  # the first two rounds warm up
                        seconds["group"].append(group_s)
                        seconds["batch"].append(batch_s)
            group, batch = (statistics.median(seconds[name]) for name in ("group", "batch"))
            worst = max(worst, batch / group)
            print(f"{address}: one group {group:.2f} s, 256 prompts {batch:.2f} s, ratio {batch / group:.2f}")
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
