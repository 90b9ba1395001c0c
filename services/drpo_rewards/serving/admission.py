"""What the gateway takes on at a time: so many requests, so many that wait, and so many pixels. The rest is told when
to come back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from drpo_rewards.errors import InvalidRequestError, OverloadedError
from drpo_rewards.images import ImageLimits
from drpo_rewards.serving.config import LimitsConfig


class Admission:
    """Turns for requests. Belongs to one event loop."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.max_ongoing)
        self._pixels = PixelPool(limits.max_pixels_in_flight, limits.retry_after_s)
        self.waiting = 0
        self.ongoing = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Allowance]:
        """Wait for a turn, then hold it. Raises OverloadedError where too many wait already."""
        if self._turns.locked() and self.waiting >= self._limits.max_queued:
            raise OverloadedError(
                "the gateway has all the requests that it can queue", retry_after_s=self._limits.retry_after_s
            )
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        self.ongoing += 1
        allowance = Allowance(self._limits.for_images(), self._pixels)
        try:
            yield allowance
        finally:
            allowance.release()
            self.ongoing -= 1
            self._turns.release()


class PixelPool:
    """The decoded pixels that all requests of a gateway hold together. Used from the decoding threads."""

    def __init__(self, size: int, retry_after_s: float) -> None:
        self._free = size
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()

    def take(self, pixels: int) -> None:
        with self._lock:
            if pixels > self._free:
                raise OverloadedError(
                    "the gateway holds all the pixels that fit in its memory just now",
                    retry_after_s=self._retry_after_s,
                )
            self._free -= pixels

    def give_back(self, pixels: int) -> None:
        with self._lock:
            self._free += pixels


class Allowance:
    """One request's share: asked with each image's size before it is decoded, so that many small files cannot become a
    large memory.
    """

    def __init__(self, limits: ImageLimits, pool: PixelPool) -> None:
        self._limits = limits
        self._pool = pool
        self._lock = threading.Lock()
        self._taken = 0
        self._released = False

    def check(self, width: int, height: int, field: str) -> None:
        """Raise unless one more image of this size fits the limits of an image, of a request, and of the gateway."""
        self._limits.check(width, height, field)
        pixels = width * height
        with self._lock:
            if self._taken + pixels > self._limits.max_group_pixels:
                raise InvalidRequestError(
                    f"with {field} the request has more than {self._limits.max_group_pixels} pixels; send fewer or "
                    f"smaller images",
                    field=field,
                )
            if not self._released:  # else a thread that goes on after its request has ended
                self._pool.take(pixels)
                self._taken += pixels

    def release(self) -> None:
        with self._lock:
            self._released = True
            self._pool.give_back(self._taken)
            self._taken = 0
