"""Threads that decode images: many requests at once, on all cores, and none at the cost of the others.

Pillow decodes without Python's lock. The headers of all images of a request are read before the first is decoded, so
that a refusal costs little. They also tell whether a request is costly: with large pictures, or with many. Costly
requests have threads of their own, and leave a core to other calls while there are any.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from typing import TypeVar

import numpy as np

from drpo_rewards.api.image_files import ImageFile
from drpo_rewards.api.images import decode_file, read_checked
from drpo_rewards.errors import OverloadedError
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.base64_text import from_base64
from drpo_rewards.serving.gateway.json_body import Base64View
from drpo_rewards.serving.gateway.tasks import run_together

ResultT = TypeVar("ResultT")
# A file, its base64 text, or pixels that need no decoding.
Content = bytes | memoryview | str | Base64View | np.ndarray

# Estimated seconds for all images of a request from which it is costly; 24 JPEG of 512x512 take about half of this.
COSTLY_S = 0.1

# How much less readily the system gives a core to the threads for costly requests than to others.
COSTLY_NICENESS = 4

# For so many seconds after a request that is not costly, costly ones leave a core to others. With all cores busy, each
# step of a small call waits for its turn on one: its latency is three to five times as long.
OTHERS_S = 0.2

# WebP pictures of more pixels are decoded one at a time: Pillow copies each while it holds Python's lock, and two of
# these copies at once, slowed by the memory, hold it six times as long as one.
WEBP_PIXELS = 1 << 20

# More threads than cores, of which one request has as many as there are cores: the image of a small call finds a thread
# that is free, and the system lets threads take turns, which a queue would not.
THREADS_PER_CORE = 4


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
        self._quick = ThreadPoolExecutor(THREADS_PER_CORE * cores, "decode-quick")
        self._costly = ThreadPoolExecutor(cores, "decode-costly", initializer=_be_nice)
        self._webp_turn = asyncio.Lock()
        self._busy = 0  # cores that decode images of costly requests
        self._finished = asyncio.Event()  # set whenever one of them has finished
        self._others_until = 0.0

    async def decode_all(
        self, contents: Sequence[Content], fields: Sequence[str], allowance: Allowance
    ) -> list[np.ndarray]:
        """Decode the images of one request.

        Raises:
            InvalidImageError: an image cannot be used; the error names its field.
            RequestTooLargeError: they take too much of the processor's time.
            OverloadedError: they are not decoded within the deadline.
        """
        turns = asyncio.Semaphore(self._cores)

        async def read_one(content: Content, field: str) -> np.ndarray | ImageFile:
            if isinstance(content, np.ndarray):
                return content
            async with turns:
                return await _run(self._quick, partial(_read, content, field, allowance))

        async def decode_one(file: np.ndarray | ImageFile, field: str) -> np.ndarray:
            if isinstance(file, np.ndarray):
                return file
            work = partial(decode_file, file, field=field, limits=allowance)
            async with turns, self._webp_turn if _is_large_webp(file) else nullcontext():
                return await (self._run_costly(work) if is_costly else _run(self._quick, work))

        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_s):
                files = await run_together(map(read_one, contents, fields))
                decode_s = sum(file.decode_s for file in files if isinstance(file, ImageFile))
                is_costly = decode_s > COSTLY_S or any(map(_is_large_webp, files))
                if not is_costly:
                    self._others_until = time.perf_counter() + OTHERS_S
                return await run_together(map(decode_one, files, fields))
        except TimeoutError:
            raise OverloadedError(
                f"the images were not decoded within {self._deadline_s:g} s", retry_after_s=self._retry_after_s
            ) from None
        finally:
            allowance.decoding_s = time.perf_counter() - started

    async def _run_costly(self, work: Callable[[], ResultT]) -> ResultT:
        while self._busy >= max(1, self._cores - (time.perf_counter() < self._others_until)):
            self._finished.clear()
            await self._finished.wait()
        self._busy += 1
        try:
            return await _run(self._costly, work)
        finally:
            self._busy -= 1
            self._finished.set()


def _is_large_webp(file: np.ndarray | ImageFile) -> bool:
    return isinstance(file, ImageFile) and file.kind == "WEBP" and file.width * file.height > WEBP_PIXELS


def _read(content: bytes | memoryview | str | Base64View, field: str, allowance: Allowance) -> ImageFile:
    if isinstance(content, str | Base64View):
        content = from_base64(content if isinstance(content, str) else content.text, field=field)
    return read_checked(content, field=field, limits=allowance)


async def _run(threads: Executor, work: Callable[[], ResultT]) -> ResultT:
    return await asyncio.get_running_loop().run_in_executor(threads, work)


def _be_nice() -> None:
    if sys.platform == "linux":  # where this holds for one thread, not for the whole process
        with suppress(OSError):
            priority = os.getpriority(os.PRIO_PROCESS, 0) + COSTLY_NICENESS
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), priority)
