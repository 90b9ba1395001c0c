"""A mixed load on a service, the memory of its processes meanwhile, and a table of both."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np
import psutil

from drpo_rewards import AsyncRankingClient
from drpo_rewards.api.images import encode_png
from drpo_rewards.errors import InternalError, RewardsError

LARGE = 80  # pictures of 1024x1024: 252 MB as plain pixels, just below the limit on a body
PROCESSES = {"gateway": ":gateway"}


@dataclass
class Tally:
    """What became of the calls.

    Attributes:
        latencies_s: seconds of each call that was answered, by the kind of load.
        failures: the codes of failed calls, by the kind of load.
        wrong: descriptions of wrong answers and of failures that say nothing.
    """

    latencies_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)

    async def count(self, kind: str, call: Callable[[], Awaitable[str | None]]) -> None:
        """Makes one call, which returns what was wrong with the answer, or None."""
        before = time.monotonic()
        try:
            wrong = await call()
        except InternalError as error:
            self.wrong.append(f"{kind}: {error}")
        except RewardsError as error:
            self.failures[kind][error.code] += 1
        except Exception as error:
            self.wrong.append(f"{kind}: not a RewardsError: {error!r}")
        else:
            self.latencies_s[kind].append(time.monotonic() - before)
            if wrong is not None:
                self.wrong.append(f"{kind}: {wrong}")


def draw_group(size: int, side: int, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """Draws random pictures. The first pixel's red is what the reward `Corner` gives, different in each."""
    images_KHWC = rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
    images_KHWC[:, 0, 0, 0] = rng.permutation(256)[:size]
    return images_KHWC, images_KHWC[:, 0, 0, 0].astype(float).tolist()


async def put_load(http_url: str, grpc_url: str, seconds: float, tally: Tally) -> None:
    """Sends small and the largest groups over HTTP and gRPC, and hangs up on others, for some seconds."""
    until = time.monotonic() + seconds
    rng = np.random.default_rng(0)
    small, large = [draw_group(8, 64, rng) for _ in range(8)], draw_group(LARGE, 1024, rng)

    async def rank(kind: str, url: str, groups: Sequence[tuple[np.ndarray, list[float]]], as_png: bool) -> None:
        async with AsyncRankingClient(url, timeout_s=120) as client:
            while time.monotonic() < until:
                images_KHWC, expected = random.choice(groups)

                async def call(images_KHWC: np.ndarray = images_KHWC, expected: list[float] = expected) -> str | None:
                    images = [encode_png(image) for image in images_KHWC] if as_png else images_KHWC
                    scores = (await client.rank("p", images)).rewards["corner"].scores
                    return None if scores == expected else f"scores {scores[:4]}..., not {expected[:4]}..."

                await tally.count(kind, call)
                await asyncio.sleep(0.05)

    async def hang_up(kind: str, url: str) -> None:
        async with AsyncRankingClient(url, retries=0) as client:
            while time.monotonic() < until:
                call = asyncio.create_task(client.rank("p", small[0][0]))
                await asyncio.sleep(random.uniform(0, 0.1))
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                tally.latencies_s[kind].append(0.0)
                await asyncio.sleep(0.2)

    async def send_half_bodies() -> None:
        host, port = httpx.URL(http_url).host, httpx.URL(http_url).port
        while time.monotonic() < until:
            _, writer = await asyncio.open_connection(host, port)
            head = f"POST /v1/rank HTTP/1.1\r\nhost: {host}\r\ncontent-length: 100000000\r\n\r\n"
            writer.write(head.encode() + bytes(20_000_000))
            await asyncio.sleep(0.5)
            writer.transport.abort()
            tally.latencies_s["half bodies"].append(0.0)
            await asyncio.sleep(1.0)

    async with asyncio.TaskGroup() as tasks:
        for name, url in (("HTTP", http_url), ("gRPC", grpc_url)):
            tasks.create_task(rank(f"small PNGs, {name}", url, small, True))
            tasks.create_task(rank(f"small pixels, {name}", url, small, False))
            tasks.create_task(rank(f"largest bodies, {name}", url, [large], False))
            tasks.create_task(hang_up(f"hang up, {name}", url))
        tasks.create_task(send_half_bodies())


class Memory:
    """Samples the resident memory that the gateway does not share, in MiB."""

    def __init__(self, service: psutil.Process) -> None:
        self._processes = {
            name: next(child for child in service.children(recursive=True) if mark in " ".join(child.cmdline()))
            for name, mark in PROCESSES.items()
        }
        self.samples: dict[str, list[float]] = {name: [] for name in PROCESSES}

    def read(self) -> dict[str, float]:
        """Reads it now."""
        infos = {name: process.memory_info() for name, process in self._processes.items()}
        return {name: (info.rss - info.shared) / 2**20 for name, info in infos.items()}

    async def keep_sampling(self) -> None:
        """Samples every half second until it is cancelled."""
        while True:
            for name, mebibytes in self.read().items():
                self.samples[name].append(mebibytes)
            await asyncio.sleep(0.5)

    def quarters(self, name: str) -> list[float]:
        """The medians of the four quarters of all samples."""
        samples = self.samples[name]
        step = len(samples) // 4
        return [statistics.median(samples[index * step : (index + 1) * step]) for index in range(4)]


async def kill_replicas(service: psutil.Process, every_s: float, killed: list[int]) -> None:
    """Kills one of a reward's replicas again and again, but never the last one."""
    while True:
        await asyncio.sleep(every_s)
        replicas = [child for child in service.children(recursive=True) if ":reward-" in " ".join(_words(child))]
        if len(replicas) > 1:
            victim = random.choice(replicas)
            victim.kill()
            killed.append(victim.pid)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def print_table(tally: Tally, memory: Memory, warm: dict[str, float], after: dict[str, float], killed: int) -> None:
    """Prints the outcome, in the form of the guide's table."""
    print(f"\n{killed} replicas were killed\n\n| load | answered | failed | p50 | p95 |\n|---|---|---|---|---|")
    for kind in sorted(tally.latencies_s.keys() | tally.failures.keys()):
        latencies = tally.latencies_s[kind]
        p50, p95 = np.percentile(latencies, [50, 95]) if latencies else (0.0, 0.0)
        failed = ", ".join(f"{count} {code}" for code, count in tally.failures[kind].items()) or "0"
        print(f"| {kind} | {len(latencies)} | {failed} | {p50:.2f} s | {p95:.2f} s |")
    print("\n| MiB | warm | quarters under load | peak | after |\n|---|---|---|---|---|")
    for name, samples in memory.samples.items():
        quarters = ", ".join(f"{value:.0f}" for value in memory.quarters(name))
        print(f"| {name} | {warm[name]:.0f} | {quarters} | {max(samples):.0f} | {after[name]:.0f} |")
