"""Several calls of rewards at the same time, as one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from drpo_rewards.errors import RewardsError

T = TypeVar("T")


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results in order. The first RewardsError ends it and calls off the rest."""
    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(call) for call in calls]
    except* RewardsError as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in started]
