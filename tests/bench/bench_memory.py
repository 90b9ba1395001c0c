"""Memory of the gateway: flat while it ranks many groups, and free again after large ones.

Launch: python tests/bench/bench_memory.py [--groups 1000] [--group-size 16] [--side 256] [--large-seconds 60]

The first output is the slope of a line through the second half of the samples, when pools and caches are full, in MiB
per 1,000 groups. It should be a small part of the size of one group. It is printed for all resident memory and for the
part that the gateway does not share. Resident memory includes pages of Ray's object store, and grows until the gateway
has touched all of them.

Then four clients send groups near the limit on bodies. The output is what the gateway holds before that, at
most, and afterwards, without what it shares.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

import psutil
from hardware import describe_hardware

from drpo_rewards.client.load import Encoding
from drpo_rewards.cluster.local_ray import start_local_ray
from drpo_rewards.rewards.base import Score, ScoreItem

SAMPLES = 50

# Images of a group, their encoding, and how many clients send such groups.
LARGE_GROUPS: list[tuple[int, Encoding, int]] = [(79, "png", 1), (80, "rgb8", 1), (128, "jpeg", 2)]


class Mean:
    """A cheap reward, so that most of the time is spent in the gateway."""

    version = "mean-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(float(item.image.mean())) for item in items]


def find_gateway() -> psutil.Process:
    """The process of the gateway."""
    children = psutil.Process().children(recursive=True)
    return next(child for child in children if "ServeReplica:ranking:gateway" in " ".join(child.cmdline()))


def own_mib(process: psutil.Process) -> float:
    """Resident memory without what is shared: Ray's object store is shared, and grows until it is touched."""
    memory = process.memory_info()
    return (memory.rss - memory.shared) / 2**20


async def load_with_large_groups(url: str, gateway: psutil.Process, seconds: float) -> tuple[int, float]:
    """Keep four clients busy with bodies near the limit. Return the answers, and the gateway's peak in MiB."""
    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.client.load import draw_groups, run_load

    peak_mib = 0.0

    async def watch() -> None:
        nonlocal peak_mib
        while True:
            peak_mib = max(peak_mib, own_mib(gateway))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    loads = (
        run_load(
            lambda: AsyncRankingClient(url, timeout_s=300, retries=0),
            "p",
            draw_groups(1, size, 1024, encoding),
            clients=clients,
            seconds=seconds,
        )
        for size, encoding, clients in LARGE_GROUPS
    )
    results = await asyncio.gather(*loads)
    watching.cancel()
    failed = [f"{result.errors}: {result.first_error}" for result in results if result.errors]
    if failed:
        print(f"failed calls: {failed}")
    return sum(len(result.latencies_s) for result in results), peak_mib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--group-size", type=int, default=16)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--large-seconds", type=float, default=60.0, help="seconds of large groups; 0 for none")
    parser.add_argument("--encoding", choices=["rgb8", "png", "jpeg", "webp"], default="png")
    arguments = parser.parse_args()

    print(describe_hardware())
    start_local_ray(num_cpus=4)

    import numpy as np

    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.client.load import LoadResult, draw_groups, run_load
    from drpo_rewards.serving import ServiceConfig, start

    groups = draw_groups(8, arguments.group_size, arguments.side, arguments.encoding)
    config = ServiceConfig.model_validate({"rewards": {"mean": {"type": "bench_memory:Mean", "num_cpus": 0.1}}})
    every = max(1, arguments.groups // SAMPLES)
    samples: list[tuple[int, float, float]] = []

    with start(config, http_port=0) as service:
        gateway = find_gateway()

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

        if arguments.large_seconds:
            print(f"before the large groups: gateway {own_mib(gateway):.0f} MiB", flush=True)
            load_large = load_with_large_groups(str(service.http_url), gateway, arguments.large_seconds)
            answered, peak_mib = asyncio.run(load_large)
            print(f"peak over {answered} large groups: {peak_mib:.0f} MiB", flush=True)
            for wait_s in (1, 19, 40):
                time.sleep(wait_s)
                print(f"{wait_s} s later: {own_mib(gateway):.0f} MiB", flush=True)

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
