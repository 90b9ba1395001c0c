"""The order in which a run uses its prompts: a pure function of the seed and the position."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from drpo.data.prompts.record import PromptRecord
from drpo.data.seeds import derive_seed


class PromptOrder:
    """An endless, shuffled sequence of prompts. Each epoch has every prompt once.

    Args:
        records: the prompts.
        seed: the run's seed.
        balance_tasks: all tasks come equally often, and each task has its own epochs. If false, tasks come in
            proportion to their prompts.

    Raises:
        ValueError: there are no prompts.
    """

    def __init__(self, records: Sequence[PromptRecord], *, seed: int = 0, balance_tasks: bool = False) -> None:
        if not records:
            raise ValueError("no prompts: the prompt source is empty")
        self._seed = seed
        self._pools: dict[str, list[PromptRecord]] = {}
        for record in records:
            self._pools.setdefault(record.task if balance_tasks else "", []).append(record)
        self._tasks = list(self._pools)
        self._shuffled = lru_cache(maxsize=4 * len(self._tasks) + 4)(self._shuffle)

    def at(self, position: int) -> PromptRecord:
        """The prompt at a position (from 0) of the sequence."""
        block, offset = divmod(position, len(self._tasks))
        task = self._tasks[self._shuffled("tasks", block, len(self._tasks))[offset]]
        pool = self._pools[task]
        epoch, index = divmod(block, len(pool))
        return pool[self._shuffled(f"task:{task}", epoch, len(pool))[index]]

    def take(self, step: int, count: int) -> list[PromptRecord]:
        """The prompts of an optimizer step with `count` groups."""
        return [self.at(step * count + offset) for offset in range(count)]

    def _shuffle(self, name: str, epoch: int, length: int) -> list[int]:
        order = list(range(length))
        random.Random(derive_seed(self._seed, "prompts", name, epoch)).shuffle(order)
        return order
