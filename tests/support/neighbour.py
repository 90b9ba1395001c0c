"""A client beside a test: it sends a small group every tenth of a second, and writes how long each answer took.

python -m support.neighbour URL FILE
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from drpo_rewards import RankingClient

PAUSE_S = 0.1


@contextmanager
def neighbour(url: str, file: Path) -> Iterator[None]:
    """Run this client in a process of its own while the block runs."""
    process = subprocess.Popen([sys.executable, "-m", "support.neighbour", url, str(file)])
    try:
        yield
        assert process.poll() is None, "a call of the neighbour failed"
    finally:
        process.kill()
        process.wait()


def read_seconds(file: Path) -> np.ndarray:
    """How long each call took, except the first ones."""
    return np.array([float(line) for line in file.read_text().splitlines()[5:]])


def main(url: str, file: str) -> None:
    """Call until this process is killed."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    with RankingClient(url, retries=0) as client, Path(file).open("w", buffering=1) as lines:
        while True:
            started = time.perf_counter()
            client.rank("p", pictures)
            lines.write(f"{time.perf_counter() - started}\n")
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
