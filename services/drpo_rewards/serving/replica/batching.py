"""Batches across calls. Each is formed when the worker is free for it, out of all that has come by then.

Ray Serve's own batches are formed as soon as a call comes, and queue up as they are: under load, one batch a call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class _Entry(Generic[ItemT, ResultT]):
    item: ItemT
    result: asyncio.Future[ResultT]
    arrived: float  # in the event loop's time


class Batcher(Generic[ItemT, ResultT]):
    """Items of many calls, handed to `run` in order: at most `size` at a time, and `batches_at_once` batches at a time.

    A batch that is not full waits for more until its oldest item is `wait_s` old. Belongs to one event loop.
    """

    def __init__(
        self, run: Callable[[list[ItemT]], Awaitable[list[ResultT]]], size: int, wait_s: float, batches_at_once: int = 1
    ) -> None:
        self._run, self._size, self._wait_s, self._batches_at_once = run, size, wait_s, batches_at_once
        self._queue: deque[_Entry[ItemT, ResultT]] = deque()
        self._full = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return sum(not entry.result.done() for entry in self._queue)

    async def submit(self, items: Sequence[ItemT]) -> list[ResultT]:
        """The items' results in order. A call that is cancelled takes what still waits out of the queue."""
        loop = asyncio.get_running_loop()
        entries = [_Entry(item, loop.create_future(), loop.time()) for item in items]
        self._queue.extend(entries)
        if len(self._queue) >= self._size:
            self._full.set()
        self._workers = {worker for worker in self._workers if not worker.done()}
        self._workers |= {loop.create_task(self._work()) for _ in range(self._batches_at_once - len(self._workers))}
        return list(await asyncio.gather(*(entry.result for entry in entries)))

    async def _work(self) -> None:
        while self._queue:
            await self._wait_for_more()
            batch = self._take()
            try:
                results = await self._run([entry.item for entry in batch]) if batch else []
            except Exception as error:
                for entry in batch:
                    if not entry.result.done():
                        entry.result.set_exception(error)
            else:
                for entry, result in zip(batch, results, strict=True):
                    if not entry.result.done():
                        entry.result.set_result(result)

    async def _wait_for_more(self) -> None:
        left_s = self._queue[0].arrived + self._wait_s - asyncio.get_running_loop().time()
        if left_s > 0 and len(self._queue) < self._size:
            self._full.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), left_s)

    def _take(self) -> list[_Entry[ItemT, ResultT]]:
        batch: list[_Entry[ItemT, ResultT]] = []
        while self._queue and len(batch) < self._size:
            entry = self._queue.popleft()
            if not entry.result.done():  # cancelled meanwhile
                batch.append(entry)
        return batch
