"""Which failed calls are tried again, and how long to wait first."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState, wait_random_exponential

from drpo_rewards.errors import RewardsError


def may_retry(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    return isinstance(error, RewardsError) and error.retryable


_backoff = wait_random_exponential(multiplier=0.25, max=8.0)


def wait(state: RetryCallState) -> float:
    """Seconds before the next attempt: random, so that clients who failed together do not come back together; growing;
    and never before Retry-After.
    """
    error = state.outcome.exception() if state.outcome else None
    earliest = getattr(error, "retry_after_s", None) or 0.0
    return earliest + _backoff(state)


def retry_after_s(header: str) -> float | None:
    """Read a `Retry-After` header, a number of seconds or a date, as seconds from now; None where it is neither."""
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
