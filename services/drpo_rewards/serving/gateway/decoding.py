"""Threads that decode images: many requests at once, on all cores, and none at the cost of the others.

Pillow decodes without Python's lock. Small and large pictures have threads of their own, and one request has only a few
images in the threads at the same time. So a small call waits neither for a large picture nor for a request with many.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

import numpy as np

from drpo_rewards.api.image_files import ImageFile, read_file
from drpo_rewards.api.images import decode_file, from_base64
from drpo_rewards.errors import OverloadedError
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.tasks import run_together

ResultT = TypeVar("ResultT")
Content = bytes | str | np.ndarray  # a file, its base64 text, or pixels that need no decoding

# Estimated seconds from which a picture is large; one of 2048x2048 takes about half of this.
LARGE_S = 0.1

# Large pictures of one request that are decoded at the same time: each may go on for a while when time has run out.
LARGE_AT_ONCE = 4

# How much less readily the system gives a core to a thread with a large picture than to others.
LARGE_NICENESS = 4

# More threads than cores, of which one request has as many as there are cores: the image of a small call finds a thread
# that is free, and the system lets threads take turns, which a queue would not.
SMALL_PER_CORE = 4


class Decoders:
    """The threads of one gateway.

    Args:
        deadline_s: the longest time that the images of one request may wait and be decoded.
        retry_after_s: seconds after which a request that waited too long may be sent again.
    """

    def __init__(self, deadline_s: float, retry_after_s: float) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._deadline_s = deadline_s
        self._retry_after_s = retry_after_s
        self._cores = cores
        self._small = ThreadPoolExecutor(SMALL_PER_CORE * cores, "decode-small")
        self._large = ThreadPoolExecutor(cores, "decode-large", initializer=_be_nice)

    async def decode_all(
        self, contents: Sequence[Content], fields: Sequence[str], allowance: Allowance
    ) -> list[np.ndarray]:
        """Decode the images of one request.

        Raises:
            InvalidImageError: an image cannot be used; the error names its field.
            RequestTooLargeError: they take too much of the processor's time.
            OverloadedError: they are not decoded within the deadline.
        """
        turns, large_turns = asyncio.Semaphore(self._cores), asyncio.Semaphore(LARGE_AT_ONCE)

        async def decode_one(content: Content, field: str) -> np.ndarray:
            if isinstance(content, np.ndarray):
                return content
            async with turns:
                decoded = await _run(self._small, partial(_decode_if_small, content, field, allowance))
            if isinstance(decoded, np.ndarray):
                return decoded
            async with large_turns:
                return await _run(self._large, partial(decode_file, decoded, field=field, limits=allowance))

        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await run_together(map(decode_one, contents, fields))
        except TimeoutError:
            raise OverloadedError(
                f"the images were not decoded within {self._deadline_s:g} s", retry_after_s=self._retry_after_s
            ) from None
        finally:
            allowance.decoding_s = time.perf_counter() - started


def _decode_if_small(content: bytes | str, field: str, allowance: Allowance) -> np.ndarray | ImageFile:
    """Decode a small picture. Of a large one, only read the headers."""
    data = content if isinstance(content, bytes) else from_base64(content, field=field)
    file = read_file(data, field=field, max_scans=allowance.max_scans)
    if file.decode_s > LARGE_S:
        return file
    return decode_file(file, field=field, limits=allowance)


async def _run(threads: Executor, work: Callable[[], ResultT]) -> ResultT:
    return await asyncio.get_running_loop().run_in_executor(threads, work)


def _be_nice() -> None:
    if sys.platform == "linux":  # where this holds for one thread, not for the whole process
        with suppress(OSError):
            priority = os.getpriority(os.PRIO_PROCESS, 0) + LARGE_NICENESS
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), priority)
