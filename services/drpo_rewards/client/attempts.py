"""How a call is attempted: again after a temporary failure, within one deadline, and not too many at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from numbers import Real
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_before_delay

from drpo_rewards.client.retries import may_retry, wait
from drpo_rewards.errors import ConfigError, InternalError, RankingTimeoutError, RewardsError, ServiceUnavailableError

ResultT = TypeVar("ResultT")

MOST_S = 1e6  # of a call: eleven days. Threads and gRPC cannot wait for any number of seconds
RESTART_S = 30.0
"""How long a call waits for a service that answered before and cannot be reached now: its gateway starts again."""


class Attempts:
    """Runs the calls of one client. It belongs to the event loop of its first call.

    Args:
        address: the service's address, for messages.
        timeout_s, max_in_flight, retries: as for `AsyncRankingClient`.

    Raises:
        ConfigError: one of these numbers cannot be used.
    """

    def __init__(self, address: str, timeout_s: float, max_in_flight: int, retries: int) -> None:
        are_numbers = all(isinstance(one, Real) for one in (timeout_s, max_in_flight, retries))
        if not are_numbers or not 0 < timeout_s <= MOST_S or max_in_flight < 1 or retries < 0:
            raise ConfigError(
                f"timeout_s must be above 0 and at most {MOST_S:g}, max_in_flight at least 1 and retries at least 0, "
                f"not {timeout_s!r}, {max_in_flight!r} and {retries!r}"
            )
        self.address = address
        self.timeout_s = timeout_s
        self.retries = retries
        self._answered = False  # whether the service ever did
        self._turns = asyncio.Semaphore(max_in_flight)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._closing: asyncio.Future[None] | None = None  # ends when the client is closed

    async def run(self, attempt: Callable[[float], Awaitable[ResultT]]) -> ResultT:
        """Repeat an attempt until it succeeds, fails permanently, or the deadline passes.

        A service that answered before and cannot be reached now gets `RESTART_S` beyond the number of attempts.
        If the wait before the next attempt would pass the deadline, the last failure is raised at once.

        Args:
            attempt: takes the seconds that are left.
        """
        closing = self.check_open()
        too_late = stop_before_delay(self.timeout_s)
        attempts = AsyncRetrying(
            retry=retry_if_exception(may_retry),
            stop=lambda state: too_late(state) or self._has_tried_enough(state),
            wait=wait,
            reraise=True,
        )
        async with self._turns:
            deadline = asyncio.get_running_loop().time() + self.timeout_s

            async def within_deadline() -> ResultT:
                result = await attempt(max(0.001, deadline - asyncio.get_running_loop().time()))
                self._answered = True
                return result

            call: asyncio.Future[ResultT] = asyncio.ensure_future(attempts(within_deadline))
            call.add_done_callback(_forget)
            either: set[asyncio.Future[Any]] = {call, closing}
            try:
                await asyncio.wait(either, timeout=self.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:  # also if the caller's task is cancelled
                call.cancel()
        # On Python 3.10, a connection may swallow the cancellation, so nobody waits for the end of the call.
        if call.done():
            return self._outcome(call)
        if self._closed:
            raise ServiceUnavailableError("this client was closed during the call")
        raise RankingTimeoutError(f"{self.address} gave no answer within {self.timeout_s:g} s")

    def _has_tried_enough(self, state: RetryCallState) -> bool:
        """Return whether a call that failed may not be repeated."""
        if self.retries and self._answered and state.outcome:
            restarts = isinstance(state.outcome.exception(), ServiceUnavailableError)
            if restarts and (state.seconds_since_start or 0.0) < RESTART_S:
                return False
        return state.attempt_number > self.retries

    def _outcome(self, call: asyncio.Future[ResultT]) -> ResultT:
        """Return the result of a call that has ended, or raise its error."""
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        if error is None:
            return call.result()
        if isinstance(error, RewardsError):
            raise error
        if self._closed:
            raise ServiceUnavailableError("this client was closed during the call")
        if isinstance(error, Exception):
            raise InternalError(f"the call of {self.address} failed: {type(error).__name__}: {error}") from error
        raise error

    @property
    def loop_has_ended(self) -> bool:
        """Whether there was a first call, and its event loop is closed."""
        return self._loop is not None and self._loop.is_closed()

    def check_open(self) -> asyncio.Future[None]:
        """Check that calls can be made here, and return what ends when the client is closed.

        Raises:
            ServiceUnavailableError: the client is closed.
            ConfigError: this is another event loop.
        """
        if self._closed:
            raise ServiceUnavailableError("this client is closed")
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        self._closing = self._closing or loop.create_future()
        if self._loop is not loop:
            raise ConfigError(
                "this client belongs to another event loop, that of its first call; open one in each loop"
            )
        return self._closing

    def close(self) -> None:
        """End the calls in progress, and refuse later ones."""
        self._closed = True
        if self._closing is not None and not self._closing.done() and not self.loop_has_ended:
            self._closing.set_result(None)


def _forget(call: asyncio.Future[Any]) -> None:
    """Look at how a call ended, so that asyncio does not report it: its caller may have left already."""
    if not call.cancelled():
        call.exception()
