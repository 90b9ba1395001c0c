"""Batches across calls. A batch is formed when a worker is free, from the items that have arrived by then.

Ray Serve's own batching forms a batch as soon as a call arrives, so under load the queue holds one batch per call.
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
    arrived: float  # seconds of the event loop's clock


class Batcher(Generic[ItemT, ResultT]):
    """Collects the items of many calls, and hands them to `run` in batches, in order. Belongs to one event loop.

    Args:
        run: returns one result per item of a batch.
        size: the most items in a batch.
        wait_s: a batch that is not full waits for more items until its oldest item is this many seconds old.
        batches_at_once: how many batches may run at the same time.
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
        """Return the items' results in order. If this call is cancelled, its waiting items leave the queue."""
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
