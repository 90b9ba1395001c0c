"""A reward in this process, for `score`, `compare` and `bench --reward`."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from drpo_rewards.cli.options import read_options
from drpo_rewards.cli.output import busy
from drpo_rewards.process import check_modules
from drpo_rewards.rewards import create
from drpo_rewards.rewards.base import AnyReward, Score

STDOUT, STDERR = 1, 2  # file descriptors


def create_reward(name: str, model: str | None, option: Sequence[str] | None) -> AnyReward:
    """Build the reward that the options `--model` and `--option` describe."""
    import_from(Path.cwd())
    with busy(f"loading {name}"):
        return create(name, read_options(option) | ({"model": model} if model else {}))


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """Let what rewards print go to stderr in a block, so that only results are on stdout.

    Its libraries and processes write to the file descriptor, which Python's own stream does not see.
    """
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C libraries have written and not handed over yet
        os.dup2(kept, STDOUT)
        os.close(kept)


def import_from(folder: Path) -> None:
    """Make modules in `folder` importable. Without this, a command can import installed modules only.

    Raises:
        ConfigError: one of them has the name of a module that is needed.
    """
    if str(folder.resolve()) not in sys.path:
        check_modules(str(folder.resolve()))
        sys.path.insert(0, str(folder.resolve()))


def reward_entry(name: str, reward: AnyReward, prompt: str) -> dict[str, Any]:
    """Return what `--json` prints about the reward."""
    higher_is_better = getattr(reward, "higher_is_better", True)
    return {"reward": name, "version": reward.version, "higher_is_better": higher_is_better, "prompt": prompt}


def score_entry(image: Path, score: Score) -> dict[str, Any]:
    """Return what `--json` prints about one image."""
    entry: dict[str, Any] = {"image": str(image), "score": float(score.value)}
    return entry | ({"details": score.details} if score.details else {})
