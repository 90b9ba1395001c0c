"""What costly requests do to others: latency of small calls while requests that cost the gateway much come in.

Launch: python tests/bench/bench_hostile.py [--seconds 10]

Every costly request is within the limits, or refused because of its cost. Each kind is sent once alone, and then one
after another for some seconds, from a process of low priority, while one client ranks groups of two small pictures. The
output is the outcome of each kind, the processor time that the request alone costs the gateway (at most 5 s; and the
system's part, which is most where memory is used for the first time), and the 95th percentile of the small calls, as a
ratio to that of the same calls on an idle service (at most 3). The reward looks at one pixel, so that no small call
waits because a reward is busy.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_memory import find_gateway
from hardware import describe_hardware
from PIL import Image

from drpo_rewards.cluster.local_ray import start_local_ray
from drpo_rewards.rewards.base import Score, ScoreItem

sys.path.append(str(Path(__file__).parents[1]))  # for `support`
SIDE = 4096
LEAST = 3  # requests of each kind


class Corner:
    """A reward that costs nothing, however large the pictures are."""

    version = "corner-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(float(item.image[0, 0, 0])) for item in items]


def draw_large(side: int) -> Image.Image:
    """A picture with as much detail as a photograph."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray(smooth ^ random.integers(0, 8, smooth.shape, dtype=np.uint8))


def as_files(*files: bytes) -> dict[str, Any]:
    """A request with these files, as `httpx` takes it."""
    named = [("images", (str(at), file)) for at, file in enumerate(files)]
    return {"files": named, "data": {"request": '{"prompt": "p"}'}}


def as_json(body: str) -> dict[str, Any]:
    """A request with this body, as `httpx` takes it."""
    return {"content": body, "headers": {"content-type": "application/json"}}


def costly_requests() -> dict[str, dict[str, Any]]:
    """By kind: the body of one request."""
    from support.odd_files import add_to_jpeg, jpeg_with_scans, png_chunk, save

    large, medium = draw_large(SIDE), draw_large(1024)
    opaque, flat = large.convert("RGBA"), Image.new("RGB", (SIDE, SIDE))
    tiny = save(draw_large(16), "PNG")
    pixels = tiny.index(b"IDAT") - 4
    in_pieces = tiny[:pixels] + png_chunk(b"IDAT", b"") * 60_000 + tiny[pixels:]
    with_tables = save(draw_large(16), "JPEG")
    for _ in range(100):
        with_tables = add_to_jpeg(with_tables, 0xDB, (b"\0" + bytes(range(1, 65))) * 1000)
    texts = [base64.b64encode(save(medium, "JPEG", quality=90)).decode()] * 128
    keys = [f'"{number}": 1' for number in range(2_000_000)]
    return {
        "8 JPEG of 4096x4096": as_files(*[save(large, "JPEG", quality=90)] * 8),
        "8 progressive JPEG of 4096x4096": as_files(*[save(large, "JPEG", quality=90, progressive=True)] * 8),
        "8 JPEG of 4096x4096 with 64 scans": as_files(*[jpeg_with_scans(SIDE, SIDE, 54)] * 8),
        "8 JPEG of 4096x4096 with 500 scans": as_files(*[jpeg_with_scans(SIDE, SIDE, 490)] * 8),
        "2 PNG of 4096x4096, opaque alpha": as_files(*[save(opaque, "PNG", compress_level=1)] * 2),
        "3 PNG of 4096x4096, opaque alpha": as_files(*[save(opaque, "PNG", compress_level=1)] * 3),
        "3 PNG of 4096x4096": as_files(*[save(large, "PNG", compress_level=1)] * 3),
        "32 flat WebP of 2048x2048": as_files(
            *[save(Image.new("RGB", (2048, 2048)), "WEBP", lossless=True, method=0)] * 32
        ),
        "8 flat WebP of 4096x4096": as_files(*[save(flat, "WEBP", lossless=True, method=0)] * 8),
        "6 PNG of 16x16 in 60,000 chunks": as_files(*[in_pieces] * 6),
        "64 PNG of 16x16 in 60,000 chunks": as_files(*[in_pieces] * 64),
        "2 JPEG of 16x16 with 100,000 tables": as_files(*[with_tables] * 2),
        "50 PNG of 1024x1024": as_files(*[save(medium, "PNG", compress_level=1)] * 50),
        "79 PNG of 1024x1024": as_files(*[save(medium, "PNG", compress_level=1)] * 79),
        "128 JPEG of 1024x1024, as JSON": as_json(json.dumps({"prompt": "p", "images": texts})),
        "14,000 unknown keys": as_json(f'{{"prompt": "p", {", ".join(keys[:14_000])}}}'),
        "2,000,000 unknown keys": as_json(f'{{"prompt": "p", {", ".join(keys)}}}'),
        "metadata of 99 kB": as_json(f'{{"prompt": "p", "metadata": {{{", ".join(keys[:8_000])}}}}}'),
    }


def send_repeatedly(url: str, body: dict[str, Any], seconds: float, least: int, answers: Any) -> None:
    """Sends the same request one after another. Puts a list with (status, code, seconds) of each into the queue."""
    import httpx

    os.nice(19)  # it stands for another machine, and gets only the processor time that nobody here wants
    started, made = time.perf_counter(), []
    with httpx.Client(timeout=120, trust_env=False) as http:
        while len(made) < least or time.perf_counter() - started < seconds:
            began = time.perf_counter()
            answer = http.post(f"{url}/v1/rank", **body)
            made.append((answer.status_code, answer.json().get("code", "ok"), time.perf_counter() - began))
    answers.put(made)


async def measure_small(url: str, images: Sequence[Any], is_over: Callable[[], bool]) -> float:
    """The 95th percentile of calls one after another, in seconds."""
    from drpo_rewards.client import AsyncRankingClient

    latencies = []
    async with AsyncRankingClient(url, timeout_s=60, retries=0) as client:
        while not is_over():
            began = time.perf_counter()
            await client.rank("p", images)
            latencies.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)
    return statistics.quantiles(latencies, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds for each kind")
    arguments = parser.parse_args()

    print(describe_hardware())
    spawn = multiprocessing.get_context("spawn")
    kinds = costly_requests()
    start_local_ray(num_cpus=4)

    from drpo_rewards.client.load import draw_groups
    from drpo_rewards.serving import ServiceConfig, start

    config = ServiceConfig.model_validate({"rewards": {"corner": {"type": "bench_hostile:Corner", "num_cpus": 0.1}}})
    (images,) = draw_groups(1, 2, 64, "png")
    with start(config, http_port=0) as service:
        url, gateway = str(service.http_url), find_gateway()

        def measure_idle() -> float:
            ends = time.perf_counter() + arguments.seconds
            return asyncio.run(measure_small(url, images, lambda: time.perf_counter() > ends))

        asyncio.run(measure_small(url, images, iter([False] * 50 + [True]).__next__))  # warm up
        idle_s = measure_idle()
        print(f"idle service: p95 of small calls {idle_s * 1e3:.1f} ms")
        print(
            f"{'costly request':<38} {'outcome':<20} {'calls':>5} {'seconds':>8} {'CPU s':>6} {'system':>6} "
            f"{'p95 ms':>7} {'ratio':>6}"
        )
        for kind, body in kinds.items():
            answers = spawn.Queue()

            def send(seconds: float, least: int, *request: Any, answers: Any = answers) -> None:
                asked = (url, *request, seconds, least, answers)
                spawn.Process(target=send_repeatedly, args=asked, daemon=True).start()

            before = gateway.cpu_times()
            send(0, 1, body)
            answers.get()
            user_s, system_s = (now - then for now, then in zip(gateway.cpu_times()[:2], before[:2], strict=True))
            send(arguments.seconds, LEAST, body)
            p95_s = asyncio.run(measure_small(url, images, lambda answers=answers: not answers.empty()))
            outcomes = answers.get()
            status, code, _ = outcomes[-1]
            each_s = statistics.median(seconds for _, _, seconds in outcomes)
            print(
                f"{kind:<38} {f'{status} {code}':<20} {len(outcomes):>5} {each_s:>8.2f} "
                f"{user_s + system_s:>6.2f} {system_s:>6.2f} {p95_s * 1e3:>7.1f} {p95_s / idle_s:>6.2f}",
                flush=True,
            )
        print(f"idle service again: p95 of small calls {measure_idle() * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
