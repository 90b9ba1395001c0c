"""A batch has all items that have arrived when the worker is free, up to its size."""

from __future__ import annotations

import asyncio

import pytest

from drpo_rewards.serving.replica.batching import Batcher


class Worker:
    """Doubles numbers once `go` is set, and records its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await self.go.wait()
        if 13 in items:
            raise ZeroDivisionError
        return [2 * item for item in items]


async def test_items_that_arrive_during_a_batch_form_the_next_one() -> None:
    worker = Worker()
    batcher = Batcher(worker, size=4, wait_s=0.0)
    calls = [asyncio.create_task(batcher.submit([number, number + 20])) for number in range(4)]
    await asyncio.sleep(0.01)
    assert worker.batches == [[0, 20, 1, 21]]
    assert batcher.waiting == 4
    calls.append(asyncio.create_task(batcher.submit([9])))
    worker.go.set()
    assert await asyncio.gather(*calls) == [[0, 40], [2, 42], [4, 44], [6, 46], [18]]
    assert worker.batches[1:] == [[2, 22, 3, 23], [9]]
    assert batcher.waiting == 0


async def test_a_batch_waits_for_more_until_it_is_full_or_old() -> None:
    worker = Worker()
    worker.go.set()
    batcher = Batcher(worker, size=3, wait_s=60.0)
    first = asyncio.create_task(batcher.submit([1]))
    await asyncio.sleep(0.01)
    assert worker.batches == []
    assert await batcher.submit([2, 3]) == [4, 6]
    assert await first == [2]
    assert worker.batches == [[1, 2, 3]]
    hasty = Batcher(worker, size=3, wait_s=0.01)
    assert await hasty.submit([5]) == [10]


async def test_a_cancelled_call_leaves_the_queue() -> None:
    worker = Worker()
    batcher = Batcher(worker, size=2, wait_s=0.0)
    running, given_up, patient = (asyncio.create_task(batcher.submit(items)) for items in ([1, 2], [3, 4], [5]))
    await asyncio.sleep(0.01)
    given_up.cancel()
    await asyncio.sleep(0.01)
    assert batcher.waiting == 1
    worker.go.set()
    assert await running == [2, 4]
    assert await patient == [10]
    assert worker.batches == [[1, 2], [5]]


async def test_a_failure_affects_only_its_batch() -> None:
    worker = Worker()
    worker.go.set()
    batcher = Batcher(worker, size=2, wait_s=0.0)
    bad, good = batcher.submit([13, 1]), batcher.submit([2])
    results = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(results[0], ZeroDivisionError)
    assert results[1] == [4]
    with pytest.raises(ZeroDivisionError):
        await batcher.submit([13])


async def test_two_batches_at_the_same_time() -> None:
    worker = Worker()
    batcher = Batcher(worker, size=2, wait_s=0.0, batches_at_once=2)
    call = asyncio.create_task(batcher.submit([1, 2, 3, 4, 5]))
    await asyncio.sleep(0.01)
    assert worker.batches == [[1, 2], [3, 4]]
    assert batcher.waiting == 1
    worker.go.set()
    assert await call == [2, 4, 6, 8, 10]
    assert worker.batches[2:] == [[5]]
