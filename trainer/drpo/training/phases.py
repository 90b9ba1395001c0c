"""The phases of a training step, by the names that figure 5 of the paper gives them.

The step says where each phase begins and ends. Nobody listens, unless `drpo profile` runs the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol, get_args

Phase = Literal[
    "text_encode",
    "student_unet_generate",
    "vae_decode",
    "reward_score",  # what the step waits for the rewards, or a differentiable reward takes; "hpsv3_score" in figure 5
    "reference_unet_generate",
    "feature_extract",
    "rank_select",
    "loss_build",
    "backward",
    "optimizer_step",
]
PHASES: tuple[Phase, ...] = get_args(Phase)


class Listener(Protocol):
    """Who is told of the phases. One may begin within another; the other then goes on after it."""

    def begin(self, phase: Phase) -> None:
        """A phase begins."""
        ...

    def end(self) -> None:
        """The phase that began last ends."""
        ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """Says that the block is this phase."""
    listener = _listener.get()
    if listener is None:
        yield
        return
    listener.begin(name)
    try:
        yield
    finally:
        listener.end()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tells a listener of all phases within the block, on this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
