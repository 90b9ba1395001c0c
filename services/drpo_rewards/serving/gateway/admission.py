"""Limits on what the gateway holds at the same time: requests, waiting requests, bytes of bodies, and pixels.

A request that exceeds a limit is refused with the time after which it may be sent again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from drpo_rewards.errors import OverloadedError, RequestTooLargeError
from drpo_rewards.serving.limits import LimitsConfig

# How much longer than estimated decoding may take: other processes share the cores, and files may be made to be slow.
SLOWEST = 2


class Admission:
    """Decides when a request may proceed. Belongs to one event loop."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.max_ongoing)
        self.body_bytes = Pool("bytes of bodies", int(limits.max_body_mb_in_flight * 1e6), limits.retry_after_s)
        self.pixels = Pool("pixels", limits.max_pixels_in_flight, limits.retry_after_s)
        self.waiting = 0
        self.ongoing = 0

    @asynccontextmanager
    async def turn(self, announced_bytes: int = 0) -> AsyncIterator[Allowance]:
        """Wait for a turn, then hold it.

        The announced bytes of a body count from now on, so that one that does not fit is refused before it is read.

        Args:
            announced_bytes: the length of the body that the request states; 0 if unknown.

        Raises:
            OverloadedError: too many requests wait already, or there is no room for the body now.
            RequestTooLargeError: the body exceeds the limit on bodies.
        """
        allowance = Allowance(self._limits, self.pixels, self.body_bytes, lambda: self.ongoing > 1)
        try:
            allowance.check_body(announced_bytes)
            await self._wait()
            try:
                yield allowance
            finally:
                self.ongoing -= 1
                self._turns.release()
        finally:
            allowance.release()

    async def _wait(self) -> None:
        if self._turns.locked() and self.waiting >= self._limits.max_queued:
            raise OverloadedError("the gateway's queue is full", retry_after_s=self._limits.retry_after_s)
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        self.ongoing += 1


class Pool:
    """A limited amount of memory that all requests of a gateway share. May be used from several threads.

    Args:
        unit: what is counted, for messages.
        size: how many units there are.
        retry_after_s: seconds after which a refused request may be sent again.
    """

    def __init__(self, unit: str, size: int, retry_after_s: float) -> None:
        self._unit = unit
        self._size = size
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()
        self.taken = 0

    def take(self, amount: int) -> None:
        """Reserve units.

        Raises:
            OverloadedError: there are not enough now.
        """
        with self._lock:
            if self.taken + amount > self._size:
                raise OverloadedError(
                    f"the gateway has no memory for more {self._unit} now",
                    retry_after_s=self._retry_after_s,
                )
            self.taken += amount

    def give_back(self, amount: int) -> None:
        """Return reserved units."""
        with self._lock:
            self.taken -= amount


class Allowance:
    """One request's share of the two pools, and its time for decoding.

    It is checked before the body is read, before each image is decoded, and while it is decoded, so that neither many
    large bodies nor many small files with large pictures can fill the memory or keep the processor busy.

    Attributes:
        has_company: tells whether there are other requests now.
        decoding_s: how long the request waited for its images to be decoded; counts against the rewards' deadlines.
    """

    def __init__(self, limits: LimitsConfig, pixels: Pool, body_bytes: Pool, has_company: Callable[[], bool]) -> None:
        self.has_company = has_company
        self._max_bytes = int(limits.max_body_mb * 1e6)
        self._image_limits = limits.for_images()
        self._max_decode_s = limits.max_decode_s
        self._pixel_pool = pixels
        self._byte_pool = body_bytes
        self._lock = threading.Lock()
        self._pixels = 0
        self._bytes = 0
        self._reserved_s = self._spent_s = 0.0
        self.decoding_s = 0.0
        self._released = False

    @property
    def body_bytes(self) -> int:
        """Bytes that are reserved for the body: the announced ones at first."""
        return self._bytes

    @property
    def max_scans(self) -> int:
        """The most scans that one JPEG file may have."""
        return self._image_limits.max_scans

    @property
    def max_webp_pixels(self) -> int:
        """The most pixels that one WebP file may have."""
        return self._image_limits.max_webp_pixels

    def check_body(self, size: int) -> None:
        """Reserve memory for a body of `size` bytes, which were announced or have been received so far.

        Raises:
            RequestTooLargeError: the body exceeds the limit on bodies.
            OverloadedError: the gateway has no memory for it now.
        """
        if size > self._max_bytes:
            raise RequestTooLargeError(f"the body has {size} bytes or more; at most {self._max_bytes} are allowed")
        with self._lock:
            if size > self._bytes and not self._released:
                self._byte_pool.take(size - self._bytes)
                self._bytes = size

    def check(self, width: int, height: int, field: str) -> None:
        """Reserve memory for one more image.

        Raises:
            InvalidRequestError: it exceeds the limit on an image or on a request; the error names `field`.
            OverloadedError: the gateway has no memory for it now.
        """
        self._image_limits.check(width, height, field)
        pixels, most = width * height, self._image_limits.max_group_pixels
        with self._lock:
            if self._pixels + pixels > most:
                raise RequestTooLargeError(
                    f"with {field} the request has more than {most} pixels; send fewer or smaller images", field=field
                )
            if not self._released:  # a decoding thread may continue after its request has ended
                self._pixel_pool.take(pixels)
                self._pixels += pixels

    def reserve_time(self, decode_s: float, field: str) -> None:
        """Count the processor time that an image will probably take.

        Raises:
            RequestTooLargeError: the images of the request take too much; the error names `field`.
        """
        with self._lock:
            self._reserved_s += decode_s
            if self._reserved_s > self._max_decode_s:
                raise self._too_slow(field)

    def spend_time(self, cpu_s: float, field: str) -> None:
        """Count processor time that an image has taken.

        Raises:
            RequestTooLargeError: the images have taken much longer than estimated; the error names `field`.
            OverloadedError: the request has ended, so nobody needs the image.
        """
        with self._lock:
            self._spent_s += cpu_s
            if self._spent_s > SLOWEST * self._max_decode_s:
                raise self._too_slow(field)
            if self._released:
                raise OverloadedError(f"{field} was not decoded: its request has ended", field=field)

    def _too_slow(self, field: str) -> RequestTooLargeError:
        return RequestTooLargeError(
            f"with {field} the images of the request take more than {self._max_decode_s:g} s of the gateway's "
            "processor to decode; send fewer or smaller ones, or plain pixels (RGB8)",
            field=field,
        )

    def release(self) -> None:
        """Return everything. Later reservations have no effect."""
        with self._lock:
            self._released = True
            self._pixel_pool.give_back(self._pixels)
            self._byte_pool.give_back(self._bytes)
            self._pixels = self._bytes = 0
