"""Running of several coroutines at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from drpo_rewards.errors import RewardsError

ResultT = TypeVar("ResultT")


async def run_together(coroutines: Iterable[Coroutine[Any, Any, ResultT]]) -> list[ResultT]:
    """Run all of them and return their results in order. The first RewardsError is raised and cancels the others."""
    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(coroutine) for coroutine in coroutines]
    except ExceptionGroup as failures:  # with `except*`, Python 3.11.2 puts what is raised here into a group
        if not all(isinstance(failure, RewardsError) for failure in failures.exceptions):
            raise
        raise failures.exceptions[0] from None
    return [task.result() for task in started]
