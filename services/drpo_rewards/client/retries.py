"""Which failed calls are repeated, and how long to wait first."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState, wait_random_exponential

from drpo_rewards.errors import RewardsError


def may_retry(error: BaseException) -> bool:
    """Return whether the same call may succeed later."""
    return isinstance(error, RewardsError) and error.retryable


_backoff = wait_random_exponential(multiplier=0.25, max=8.0)


def wait(state: RetryCallState) -> float:
    """Return the seconds to wait before the next attempt: at least `Retry-After`, and a random time that grows.

    It is random so that clients that failed at the same time do not return at the same time.
    """
    error = state.outcome.exception() if state.outcome else None
    earliest = getattr(error, "retry_after_s", None) or 0.0
    return earliest + _backoff(state)


def parse_retry_after(header: str) -> float | None:
    """Return the seconds in a `Retry-After` header, which is a number or a date; None if it is neither."""
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return None
