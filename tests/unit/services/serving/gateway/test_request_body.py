"""Bodies as they arrive in pieces."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import Request

from drpo_rewards.serving.gateway.admission import Admission
from drpo_rewards.serving.gateway.request_body import LARGE_BYTES, PAUSE_S, _collect, _receive
from drpo_rewards.serving.limits import LimitsConfig

PIECE = bytes(1 << 20)


async def count_pauses(monkeypatch: pytest.MonkeyPatch, admission: Admission, pieces: int) -> int:
    pauses = []

    async def sleep(seconds: float, result: Any = None) -> Any:
        pauses.append(seconds)
        return result

    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": PIECE, "more_body": left > 0} for left in reversed(range(pieces))]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    async with admission.turn() as allowance:
        monkeypatch.setattr(asyncio, "sleep", sleep)
        request = Request({"type": "http", "headers": []}, receive)
        received = [len(piece) async for piece in _receive(request, allowance, idle_s=5)]
        monkeypatch.undo()
    assert received == [len(PIECE)] * pieces
    assert set(pauses) <= {PAUSE_S}
    return len(pauses)


async def test_large_bodies_pause_only_while_there_are_other_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    admission, large = Admission(LimitsConfig()), LARGE_BYTES // len(PIECE)
    assert await count_pauses(monkeypatch, admission, large + 4) == 0
    async with admission.turn():
        assert await count_pauses(monkeypatch, admission, large) == 0
        assert await count_pauses(monkeypatch, admission, large + 4) == 3  # not after the last piece


@pytest.mark.parametrize("announced", [0, 7, 2500, 3000, 10_000])
async def test_pieces_become_one_body_whatever_size_was_announced(announced: int) -> None:
    whole = random.Random(0).randbytes(3000)
    seen = []

    async def pieces() -> AsyncIterator[bytes]:
        for start, end in itertools.pairwise([0, 1, 1, 1000, 2999, 3000]):
            yield whole[start:end]

    body = await _collect(pieces(), announced, seen.append)
    assert body == whole
    assert b"".join(seen) == whole
