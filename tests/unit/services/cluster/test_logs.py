"""The log files of Serve's processes take any text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

import pytest

from drpo_rewards.cluster.logs import let_logs_take_any_text


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """What Serve's logger writes to, through a buffer, as in Serve's processes."""
    path, logger = tmp_path / "log", logging.getLogger("ray.serve")
    target = RotatingFileHandler(path, maxBytes=40, backupCount=2, encoding="utf-8")
    handler = MemoryHandler(1, target=target)
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False  # pytest could not send such a text between its processes
    yield path
    logger.propagate = propagates
    logger.removeHandler(handler)
    target.close()


def test_half_a_letter_is_written(file: Path) -> None:
    let_logs_take_any_text()
    for number in range(2):  # the second one into the next file
        logging.getLogger("ray.serve").error("number %d, half a letter: \ud83d", number)
    texts = [path.read_text(encoding="utf-8") for path in (file, file.with_name("log.1"))]
    assert texts == [f"number {number}, half a letter: \\ud83d\n" for number in (1, 0)]
