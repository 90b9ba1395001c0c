"""What the way to a reward costs: processor time and images/s, compared with a plain threaded server.

Launch: python tests/bench/bench_way.py [--seconds 10] [--parts start transports handle replicas gateways idle]

    start        seconds from nothing to a ready service: at most 15
    transports   groups of 8 pictures of 512x512 over HTTP and gRPC, 1, 4 and 16 clients; the plain server gets the same
                 bytes and scores them with the same class. Processor time is that of all processes of the service.
                 At most 1.5 times that of the plain server; images/s at least 0.9, 1.0 and 1.2 times its own.
    handle       a group of 24 pictures of 512x512 through the handle to two rewards: at most 25 ms beyond the rewards
    replicas     rewards that sleep, with 2, 4 and 8 replicas: at least 0.9 of what so many can do
    gateways     images/s with 1 and 2 gateways
    idle         processor time of a service that nobody calls: at most 0.05 of a core

Ratios hold only on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from hardware import describe_hardware

from drpo_rewards.cluster.local_ray import start_local_ray, stop_ray
from drpo_rewards.rewards.base import Score, ScoreItem

sys.path.append(str(Path(__file__).parents[1]))  # for `support`
PARTS = ("start", "transports", "handle", "replicas", "gateways", "idle")
SIDE = 512


class Sleeper:
    """Takes as long as a model on its own GPU, and no time of the processor."""

    version = "sleeper-1"
    image_s = 0.02

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        time.sleep(self.image_s * len(items))
        return [Score(float(item.image[0, 0, 0])) for item in items]


class Cheap:
    """Takes no time."""

    version = "cheap-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(float(item.image[0, 0, 0])) for item in items]


@dataclass(frozen=True)
class Measured:
    """What a load got, and what it cost the processes of the server."""

    images_per_s: float
    cpu_ms: float  # for one group


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """Processor time of processes so far. What has ended meanwhile is left out."""
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


def measure(
    connect: Callable[[], Any],
    groups: Sequence[Any],
    clients: int,
    seconds: float,
    family: Sequence[psutil.Process],
    **options: Any,
) -> Measured:
    """Keep clients busy for some seconds."""
    from drpo_rewards.client.load import run_load

    before = cpu_s(family)
    load = asyncio.run(run_load(connect, "p", groups, clients=clients, seconds=seconds, **options))
    assert not load.errors, load.first_error
    return Measured(load.images_per_s, (cpu_s(family) - before) / len(load.latencies_s) * 1e3)


def served(settings: dict[str, Any], **config: Any) -> Any:
    """Start a service with these rewards."""
    from drpo_rewards.serving import ServiceConfig, start

    for reward in settings.values():
        reward.setdefault("num_cpus", 0.01)
    return start(ServiceConfig.model_validate({"rewards": settings, **config}), http_port=0, grpc_port=0)


def service_family() -> list[psutil.Process]:
    """All processes of the local Ray."""
    return psutil.Process().children(recursive=True)


def bench_transports(seconds: float, rounds: int, numbers: Sequence[int]) -> None:
    import httpx
    from support.tiny.clip import write_clip

    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.client.load import draw_groups
    from drpo_rewards.serving.listeners import free_port

    groups = draw_groups(4, 8, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder))
        port = free_port()
        script = Path(__file__).with_name("threaded_server.py")
        plain = subprocess.Popen([sys.executable, str(script), str(port), folder])
        plain_process = psutil.Process(plain.pid)
        reward = {"type": "pickscore", "options": {"model": folder}, "batch_size": 64}
        try:
            with served({"pickscore": reward}) as service:
                family = [one for one in service_family() if one.pid != plain.pid]
                addresses = {
                    "plain": (f"http://127.0.0.1:{port}", [plain_process]),
                    "HTTP": (str(service.http_url), family),
                    "gRPC": (str(service.grpc_address), family),
                }
                while True:
                    try:
                        httpx.get(addresses["plain"][0], trust_env=False)
                        break
                    except httpx.ConnectError:
                        time.sleep(0.2)
                found: dict[tuple[str, int], list[Measured]] = {}
                for round_ in range(-1, rounds):  # round -1 warms up
                    for clients in numbers:
                        for kind, (address, processes) in addresses.items():
                            result = measure(
                                lambda address=address: AsyncRankingClient(address, timeout_s=120),
                                groups,
                                clients,
                                seconds if round_ >= 0 else 4.0,
                                processes,
                            )
                            if round_ >= 0:
                                found.setdefault((kind, clients), []).append(result)
        finally:
            plain.terminate()
            plain.wait()
    print(f"\ngroups of 8 pictures of {SIDE}x{SIDE}, plain pixels; in brackets the ratio to the plain server")
    print(f"{'clients':>7} {'':>6} {'images/s':>16} {'CPU ms a group':>20}")
    for clients in numbers:
        rate, cost = (
            {kind: statistics.median(getattr(each, name) for each in found[kind, clients]) for kind in addresses}
            for name in ("images_per_s", "cpu_ms")
        )
        for kind in addresses:
            print(
                f"{clients:>7} {kind:>6} {rate[kind]:>8.1f} ({rate[kind] / rate['plain']:4.2f}) "
                f"{cost[kind]:>11.1f} ({cost[kind] / cost['plain']:4.2f})",
                flush=True,
            )


def bench_handle(seconds: float) -> None:
    import numpy as np

    from drpo_rewards.client import AsyncRankingClient

    images_KHWC = np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)

    async def rank(address: str) -> list[float]:
        beyond_ms = []
        async with AsyncRankingClient(address, timeout_s=60) as client:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                began = time.perf_counter()
                answer = await client.rank("p", images_KHWC)
                took_ms = (time.perf_counter() - began) * 1e3
                beyond_ms.append(took_ms - max(answer.timings_ms[f"score.{name}"] for name in ("one", "two")))
        return beyond_ms[5:]

    sleeper = {"type": "bench_way:Sleeper", "batch_size": 64}
    with served({"one": dict(sleeper), "two": dict(sleeper)}) as service:
        beyond_ms = asyncio.run(rank(service.handle_address))
    print(
        f"\na group of 24 pictures of {SIDE}x{SIDE} by handle to two rewards: {statistics.median(beyond_ms):.1f} ms "
        f"beyond the slower reward (median of {len(beyond_ms)})",
        flush=True,
    )


def bench_replicas(seconds: float) -> None:
    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.client.load import draw_groups

    groups = draw_groups(4, 8, 128)
    print("\nreplicas that sleep 20 ms an image, batches of 8, gRPC; in brackets the share of what they can do at most")
    for replicas in (2, 4, 8):
        reward = {"type": "bench_way:Sleeper", "num_replicas": replicas, "batch_size": 8}
        with served({"sleeper": reward}) as service:
            address = str(service.grpc_address)
            result = measure(
                lambda address=address: AsyncRankingClient(address, timeout_s=60), groups, 3 * replicas, seconds, []
            )
        most = replicas / Sleeper.image_s
        print(
            f"{replicas} replicas: {result.images_per_s:6.1f} images/s ({result.images_per_s / most:4.2f})", flush=True
        )


def bench_gateways(seconds: float) -> None:
    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.client.load import draw_groups

    groups = draw_groups(4, 8, SIDE, "jpeg")
    print(f"\ngateways; groups of 8 JPEG of {SIDE}x{SIDE}, 16 clients, a reward that takes no time")
    for gateways in (1, 2):
        with served({"cheap": {"type": "bench_way:Cheap"}}, num_gateways=gateways) as service:
            address = str(service.http_url)
            result = measure(lambda address=address: AsyncRankingClient(address, timeout_s=60), groups, 16, seconds, [])
        print(f"{gateways} gateways: {result.images_per_s:6.1f} images/s", flush=True)


def bench_idle(seconds: float) -> None:
    with served({"cheap": {"type": "bench_way:Cheap"}}):
        time.sleep(10)
        family = service_family()
        names = {process: " ".join(process.cmdline() or [process.name()])[:70] for process in family}
        before = {process.pid: cpu_s([process]) for process in family}
        time.sleep(max(seconds, 20.0))
        shares = {process: (cpu_s([process]) - before[process.pid]) / max(seconds, 20.0) for process in family}
    print(f"\nan idle service takes {sum(shares.values()):.3f} of a core:")
    for process, share in sorted(shares.items(), key=lambda item: -item[1])[:6]:
        print(f"  {share:.3f} {names[process]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds for each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="how often the transports are measured")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="clients of the transports")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS))
    arguments = parser.parse_args()
    print(describe_hardware(), flush=True)
    started = time.perf_counter()
    start_local_ray(num_cpus=4)
    if "start" in arguments.parts:
        with served({"cheap": {"type": "bench_way:Cheap"}}):
            print(f"from nothing to a ready service: {time.perf_counter() - started:.1f} s", flush=True)
    try:
        if "transports" in arguments.parts:
            bench_transports(arguments.seconds, arguments.rounds, arguments.clients)
        if "handle" in arguments.parts:
            bench_handle(arguments.seconds)
        if "replicas" in arguments.parts:
            bench_replicas(arguments.seconds)
        if "gateways" in arguments.parts:
            bench_gateways(arguments.seconds)
        if "idle" in arguments.parts:
            bench_idle(arguments.seconds)
    finally:
        stop_ray()


if __name__ == "__main__":
    main()
