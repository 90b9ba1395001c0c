"""What may travel as metadata or details: plain JSON that every transport can carry, within limits."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from drpo_rewards.reading import why_unreadable

MAX_BYTES = 100_000  # of one group's metadata, or of the details of one score or comparison
MAX_DEPTH = 16  # gRPC limits the depth of messages, and all transports accept the same requests
MAX_NUMBER = sys.float_info.max  # gRPC carries every number as a double
CONTAINERS = (dict, list, tuple)  # `dict | list | tuple` would be made anew for each of thousands of values


def check_plain_json(value: dict[str, Any]) -> dict[str, Any]:
    """Check that a dict can travel over every transport, and return it.

    Raises:
        ValueError: it is not plain JSON, too large, or too deep. The message goes on after the name of the dict.
    """
    _check_values(value)
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"must be plain JSON with finite numbers ({why_unreadable(error)})") from None
    if size > MAX_BYTES:
        raise _too_large()
    return value


def _check_values(value: dict[str, Any]) -> None:
    """Check what `json.dumps` lets pass, and that it has little to do, because it writes all before it is measured.

    A few lists that hold each other many times are billions of values, so they are counted as they are visited.
    """
    left = MAX_BYTES
    waiting: list[Iterator[Any]] = [iter((value,))]
    while waiting:
        for inner in waiting[-1]:
            left -= len(inner) if isinstance(inner, str) else 1  # each takes at least as many bytes
            if left < 0:
                raise _too_large()
            if isinstance(inner, CONTAINERS):
                if len(waiting) > MAX_DEPTH:
                    raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
                if isinstance(inner, dict):
                    left -= _check_keys(inner, left)
                waiting.append(iter(inner.values() if isinstance(inner, dict) else inner))
                break
            if isinstance(inner, int) and abs(inner) > MAX_NUMBER:
                raise ValueError("must be plain JSON with finite numbers (an integer is too large)")
        else:
            waiting.pop()


def _check_keys(values: dict[Any, Any], left: int) -> int:
    """Check the keys of one dict, and return how many bytes they take at least, or more than are left."""
    size = 0
    for key in values:
        if not isinstance(key, str):
            shown = key if key is None or (isinstance(key, int) and abs(key) < 1e9) else f"of type {type(key).__name__}"
            raise ValueError(f"must be plain JSON (the key {shown} is not text)")
        size += len(key)
        if size > left:
            break
    return size


def _too_large() -> ValueError:
    return ValueError(f"is more than {MAX_BYTES} bytes of JSON")
