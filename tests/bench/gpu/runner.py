"""Runs the parts one after the other, each in a process of its own, and keeps the report up to date."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from bench.gpu.parts import PARTS
from bench.gpu.record import LOG, ROWS, Record, read_results, write_results

from drpo_rewards.cluster.watchdog import GRACE_S

_POLL_S = 1.0
_END_S = 15.0  # for a run to write its checkpoint after SIGTERM


class SkippedError(Exception):
    """A part cannot be measured here; the message says why."""


def run_all(names: Sequence[str], out: Path, scratch: Path | None, small: bool, limit_s: float) -> int:
    """Runs parts until `limit_s` seconds have passed.

    Returns:
        The exit status: 1 if a part failed, else 0. A part that was skipped or stopped at its limit has not failed.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    (out / ROWS).write_text("")
    (out / LOG).write_text("")
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as temporary:
        folder = scratch or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            left_s = limit_s - (time.monotonic() - started)
            if left_s < 1:
                Record(out, name).status("skipped", 0.0, f"the limit of {limit_s:.0f} s for all parts was reached")
            else:
                # A CPU may be busy, so in the small form only the limit for all parts holds.
                _run_in_process(name, out, folder, small, left_s if small else min(PARTS[name].limit_s, left_s))
            write_results(out)
    print(f"results: {out}")
    return int(any(part["status"] == "failed" for part in read_results(out)["parts"].values()))


def run_part(name: str, out: Path, scratch: Path, small: bool) -> None:
    """Measures one part in this process."""
    from bench.gpu.measure import Bench, describe_machine

    record = Record(out, name)
    started = time.monotonic()
    record.machine(describe_machine())
    part = PARTS[name]
    try:
        import_module(f"bench.gpu.{part.module}").run(Bench(out, scratch, small, record), *part.arguments)
    except SkippedError as reason:
        record.status("skipped", time.monotonic() - started, str(reason))
    else:
        record.status("done", time.monotonic() - started)


def _run_in_process(name: str, out: Path, scratch: Path, small: bool, limit_s: float) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--part", name, "--out", str(out), "--scratch", str(scratch)]
    started = time.monotonic()
    print(f"== {name}, at most {limit_s:.0f} s", flush=True)
    with (out / LOG).open("a") as log:
        print(f"\n== {name}", file=log, flush=True)
        process = subprocess.Popen(
            [*command, *(["--small"] if small else [])], stdout=log, stderr=log, start_new_session=True
        )
        try:
            while (status := _wait(process, started + limit_s)) is None and time.monotonic() < started + limit_s:
                write_results(out)
        finally:
            if process.poll() is None:
                _kill_group(process)
    seconds = time.monotonic() - started
    if status is None:
        Record(out, name).status("stopped", seconds, f"it took more than its limit of {limit_s:.0f} s")
    elif status != 0:
        lines = [line for line in (out / LOG).read_text().splitlines() if line.strip()]
        Record(out, name).status("failed", seconds, f"exit status {status}: {lines[-1]} (see {LOG})")
    part = read_results(out)["parts"][name]
    print(f"   {part['status']} after {seconds:.0f} s {part.get('reason', '')}", flush=True)


def _wait(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The exit status, or None if the process still runs after a short while or at the deadline."""
    try:
        return process.wait(max(0.0, min(_POLL_S, deadline - time.monotonic())))
    except subprocess.TimeoutExpired:
        return None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and what it started. Ray's processes are not in its group, and end soon after their driver."""
    os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _END_S
    while process.poll() is None or _has_members(process.pid):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(GRACE_S)
            return
        time.sleep(0.2)


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
