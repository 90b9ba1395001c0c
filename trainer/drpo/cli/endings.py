"""Signals that end a command: Ctrl-C, and SIGTERM and SIGHUP, which count as Ctrl-C.

`kill`, `ray job stop` and container runtimes send SIGTERM. What follows at once is the same ending. A later signal
hurries, but for SIGHUP: a terminal that is closed sends it twice. A program that was started by nohup ignores it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from drpo_rewards.process import EndingClock, put_off_in_fork

_TITLES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP (the terminal was closed)"}

_told: list[signal.Signals] = []  # of this command, in their order


@contextmanager
def endings_as_ctrl_c() -> Iterator[None]:
    """Raises KeyboardInterrupt for each of these signals within this block, so that a run writes its checkpoint.

    Ray keeps to it: see `drpo_rewards.cluster.local_ray`.
    """
    _told.clear()
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return

    clock = EndingClock()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if put_off_in_fork(number, frame):
            return
        again = number == signal.SIGHUP and number in _told
        if again or not clock.counts():
            return
        _told.append(signal.Signals(number))
        raise KeyboardInterrupt

    endings = [number for number in _TITLES if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, interrupt) for number in endings}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def ending_status() -> int:
    """The exit status of a command that was ended: 128 and the number of the signal."""
    return 128 + _last()


def describe_ending(error: BaseException | None = None) -> str:
    """What ended the command, in a few words, with the error that came of it or after it."""
    title = f"ended by {_TITLES[_last()]}"
    if error is None or isinstance(error, KeyboardInterrupt):
        return title
    return f"{title} ({type(error).__name__}: {error})"


def count_signals() -> int:
    """How many signals the command has got so far."""
    return len(_told)


def is_ending(error: BaseException, earlier: int = 0) -> bool:
    """Whether an error came of a signal or after it. In an import, the interrupt may become an ImportError.

    Args:
        error: the error.
        earlier: what `count_signals` gave when that began which failed.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None or count_signals() > earlier


def _last() -> signal.Signals:
    return _told[-1] if _told else signal.SIGINT
