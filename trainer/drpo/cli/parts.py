"""The parts of a command's result, such as evaluation, summary and report: one that fails does not take others along.

parts = Parts(run_dir)
with parts.part("summary.json"):
    write_summary(...)
parts.end()
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from drpo.cli.common import errors, say
from drpo.cli.endings import count_signals, describe_ending, ending_status, is_ending
from drpo.errors import DrpoError
from drpo_rewards.errors import RewardsError

FAILURES_FILE = "failures.log"


class Parts:
    """Runs parts one after the other, and names those that fail.

    Args:
        run_dir: the run's folder. The traceback of an unforeseen error is written into its failures.log.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._interrupted = False
        self.failed: dict[str, str] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Runs a part. If it fails, prints why in one line, and goes on after the block."""
        earlier = count_signals()
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:  # whatever a part fails with, the others are made
            if is_ending(error, earlier):
                self._interrupted = True
                self._fail(name, describe_ending(error))
            elif isinstance(error, DrpoError | RewardsError):
                self._fail(name, str(error))
            else:
                self._fail(name, f"{type(error).__name__}: {error}{self._keep(traceback.format_exc())}")

    def end(self) -> None:
        """Ends the command with status 1, or that of a signal, if a part has failed, and says what makes it anew."""
        if not self.failed:
            return
        evaluate = any(name.startswith("evaluation") for name in self.failed)  # this also writes summary and report
        again = f"drpo eval --adapter {self._run_dir}" if evaluate else f"drpo report {self._run_dir}"
        message = f"Everything else is in {self._run_dir}. After removing the cause, run "
        say(message, (again, "bold"), to=errors)
        raise typer.Exit(ending_status() if self._interrupted else 1)

    def _fail(self, name: str, reason: str) -> None:
        line = " ".join(f"{name} failed: {reason}".split())
        if self.failed.get(name) != line:  # once, if it was tried twice
            self.failed[name] = line
            say(("error: ", "bold red"), line, to=errors)

    def _keep(self, trace: str) -> str:
        path = self._run_dir / FAILURES_FILE
        try:
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(trace + "\n")
        except OSError:  # the disk may be what failed
            return ""
        return f" (details: {path})"
