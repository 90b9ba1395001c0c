"""The log files of Serve's processes take any text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

import pytest

from drpo_rewards.cluster.logs import let_logs_take_any_text


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[MemoryHandler]:
    """What Serve's logger writes to, through a buffer, as in Serve's processes."""
    logger = logging.getLogger("ray.serve")
    target = RotatingFileHandler(tmp_path / "log", maxBytes=40, backupCount=2, encoding="utf-8")
    handler = MemoryHandler(1, target=target)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    target.close()


def test_half_a_letter_is_written(handler: MemoryHandler, tmp_path: Path) -> None:
    let_logs_take_any_text()
    for number in range(2):  # the second one into the next file
        # Not through the logger: pytest catches what it gets, and cannot send such a text between its processes.
        handler.handle(logging.makeLogRecord({"msg": f"number {number}, half a letter: \ud83d"}))
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("log", "log.1")]
    assert texts == [f"number {number}, half a letter: \\ud83d\n" for number in (1, 0)]
