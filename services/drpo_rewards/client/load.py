"""Load tests of a ranking service: several clients, each of which sends one group after another."""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from drpo_rewards.api.images import ImageLike
from drpo_rewards.client import AsyncRankingClient
from drpo_rewards.errors import RewardsError

Encoding = Literal["rgb8", "png", "jpeg", "webp"]
ENCODINGS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 1},
    "jpeg": {"format": "JPEG", "quality": 95},
    "webp": {"format": "WEBP", "lossless": True, "method": 0},
}
PERCENTILES = (50, 95, 99)


@dataclass
class LoadResult:
    """The outcome of a load test.

    Attributes:
        clients: how many clients sent groups at the same time.
        group_size: images in each group.
        seconds: the time from the start to the last answer.
        latencies_s: seconds of each call that succeeded.
        errors: number of failed calls by the error's `code`.
        first_error: the message of the first error; empty if there was none.
    """

    clients: int
    group_size: int
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    first_error: str = ""

    @property
    def images_per_s(self) -> float:
        """Images of calls that succeeded, divided by the time."""
        return len(self.latencies_s) * self.group_size / self.seconds if self.seconds else 0.0

    def percentiles_ms(self) -> dict[str, float]:
        """Return p50, p95 and p99 of the latencies in milliseconds; empty if no call succeeded."""
        if not self.latencies_s:
            return {}
        values = np.percentile(self.latencies_s, PERCENTILES) * 1e3
        return {f"p{rank}": round(float(value), 2) for rank, value in zip(PERCENTILES, values, strict=True)}

    def summary(self) -> dict[str, Any]:
        """Return the whole outcome as plain JSON."""
        return {
            "clients": self.clients,
            "group_size": self.group_size,
            "seconds": round(self.seconds, 3),
            "requests": len(self.latencies_s),
            "images_per_s": round(self.images_per_s, 1),
            "latency_ms": self.percentiles_ms(),
            "errors": dict(self.errors),
        }


async def run_load(
    connect: Callable[[], AsyncRankingClient],
    prompt: str,
    groups: Sequence[Sequence[ImageLike]],
    *,
    clients: int,
    seconds: float | None = None,
    requests: int | None = None,
    on_answer: Callable[[LoadResult], None] = lambda result: None,
    **options: Any,
) -> LoadResult:
    """Keep `clients` calls in progress until `seconds` have passed or `requests` were sent, whichever comes first.

    Each client has its own connection and sends the next group as soon as the last one is answered. After a failed
    call, its client pauses, so that it does not flood a service that refuses calls at once.

    Args:
        connect: creates one client.
        prompt: the prompt of every group.
        groups: the images of each group, all of the same number. Groups are sent in turn.
        clients: how many clients send groups at the same time.
        seconds: the length of the test; None for no limit.
        requests: the total number of calls; None for no limit.
        on_answer: called after each call with the outcome so far.
        options: those of `AsyncRankingClient.rank`.
    """
    result = LoadResult(clients, len(groups[0]))
    turns = itertools.cycle(groups)
    numbers = itertools.count() if requests is None else iter(range(requests))
    started = time.perf_counter()

    async def send_all(client: AsyncRankingClient) -> None:
        for _ in numbers:
            before = time.perf_counter()
            if seconds is not None and before - started >= seconds:
                return
            try:
                await client.rank(prompt, next(turns), **options)
                result.latencies_s.append(time.perf_counter() - before)
            except RewardsError as error:
                result.errors[error.code] += 1
                result.first_error = result.first_error or str(error)
                await asyncio.sleep(min(1.0, error.retry_after_s or 0.05))
            result.seconds = time.perf_counter() - started
            on_answer(result)

    opened = [connect() for _ in range(clients)]
    try:
        await asyncio.gather(*map(send_all, opened))
    finally:
        for client in opened:
            await client.close()
    return result


def draw_groups(
    groups: int, group_size: int, side: int, encoding: Encoding = "rgb8", seed: int = 0
) -> list[list[ImageLike]]:
    """Draw groups of square pictures with coloured discs: as arrays, which are sent as RGB8, or as files' bytes."""
    rng = np.random.default_rng(seed)
    return [[_encode(_draw_discs(side, rng), encoding) for _ in range(group_size)] for _ in range(groups)]


def _draw_discs(side: int, rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (side, side), (236, 238, 241))
    draw = ImageDraw.Draw(picture)
    for x, y in rng.uniform(0.2, 0.8, (int(rng.integers(1, 4)), 2)) * side:
        radius, color = rng.uniform(0.08, 0.18) * side, tuple(int(level) for level in rng.integers(0, 200, 3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return picture


def _encode(picture: Image.Image, encoding: Encoding) -> ImageLike:
    if encoding == "rgb8":
        return np.asarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, **ENCODINGS[encoding])
    return buffer.getvalue()
