"""When a call that failed is made again: who may, and how long it waits first."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState, wait_random_exponential

from drpo_rewards.errors import RewardsError


def may_retry(error: BaseException) -> bool:
    return isinstance(error, RewardsError) and error.retryable


_backoff = wait_random_exponential(multiplier=0.25, max=8.0)


def wait(state: RetryCallState) -> float:
    """Random and growing, so that clients who failed together do not come back together; never before Retry-After."""
    error = state.outcome.exception() if state.outcome else None
    earliest = getattr(error, "retry_after_s", None) or 0.0
    return earliest + _backoff(state)


def retry_after_s(header: str) -> float | None:
    """Seconds from now of a `Retry-After`, which is a number of them or a date."""
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
