"""Memory of the gateway while it ranks many groups, which should stay flat.

Launch: python tests/bench/bench_memory.py [--groups 1000] [--group-size 16] [--side 256] [--encoding png]

The output is the slope of a line through the second half of the samples, when pools and caches are full, in MiB per
1,000 groups. It should be a small part of the size of one group. It is printed for all resident memory and for the part
that the gateway does not share. Resident memory includes pages of Ray's object store, and grows until the gateway has
touched all of them.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from hardware import describe_hardware

from drpo_rewards.cluster.local_ray import start_local_ray
from drpo_rewards.rewards.base import Score, ScoreItem

SAMPLES = 50


class Mean:
    """A cheap reward, so that most of the time is spent in the gateway."""

    version = "mean-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(float(item.image.mean())) for item in items]


def gateway_pid() -> int:
    import ray
    from ray.util.state import list_actors

    filters = [("state", "=", "ALIVE"), ("class_name", "=", "ServeReplica:ranking:gateway")]
    return list_actors(ray.get_runtime_context().gcs_address, filters=filters)[0].pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--group-size", type=int, default=16)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--encoding", choices=["rgb8", "png", "jpeg", "webp"], default="png")
    arguments = parser.parse_args()

    print(describe_hardware())
    start_local_ray(num_cpus=4)

    import numpy as np
    import psutil

    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.client.load import LoadResult, draw_groups, run_load
    from drpo_rewards.serving import ServiceConfig, start

    groups = draw_groups(8, arguments.group_size, arguments.side, arguments.encoding)
    config = ServiceConfig.model_validate({"rewards": {"mean": {"type": "bench_memory:Mean", "num_cpus": 0.1}}})
    every = max(1, arguments.groups // SAMPLES)
    samples: list[tuple[int, float, float]] = []

    with start(config, http_port=0) as service:
        gateway = psutil.Process(gateway_pid())

        def sample(result: LoadResult) -> None:
            answered = len(result.latencies_s)
            if answered % every == 0:
                memory = gateway.memory_info()
                samples.append((answered, memory.rss / 2**20, (memory.rss - memory.shared) / 2**20))

        load = run_load(
            lambda: AsyncRankingClient(str(service.http_url)),
            "p",
            groups,
            clients=1,
            requests=arguments.groups,
            on_answer=sample,
        )
        result = asyncio.run(load)

    assert not result.errors, result.first_error
    group_mib = arguments.group_size * arguments.side**2 * 3 / 2**20
    print(
        f"{arguments.groups} groups of {arguments.group_size} {arguments.encoding} images of "
        f"{arguments.side}x{arguments.side}: {result.images_per_s:.0f} images/s, one client"
    )
    answered, *kinds = np.array(samples).T
    half = len(samples) // 2
    for kind, mebibytes in zip(("resident", "not shared"), kinds, strict=True):
        slope = np.polyfit(answered[half:], mebibytes[half:], 1)[0] * 1000
        print(
            f"gateway, {kind}: {mebibytes[0]:.1f} MiB after {answered[0]:.0f} groups, {mebibytes[-1]:.1f} MiB at the "
            f"end; {slope:+.2f} MiB per 1,000 groups over the second half (one group decoded: {group_mib:.1f} MiB)"
        )


if __name__ == "__main__":
    main()
