"""A ranking service started as a user would: `drpo-rewards serve CONFIG` in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.guide import example

MORE_REWARDS = """\
  geneval: {type: geneval, num_cpus: 0.1}
  darkness: {type: "support.service_rewards:Darkness", num_cpus: 0.1, own_app: true}
mixtures:
  default: {rewards: {geneval: 1.0}}
  both: {rewards: {geneval: 0.7, sharpness: 0.3}}
"""


@dataclass(frozen=True)
class Served:
    """Where it is, and its process."""

    folder: Path
    process: subprocess.Popen[str]
    http_url: str
    grpc_url: str


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """The guide's own reward, from the file that the guide shows, beside two others."""
    (folder / "sharpness.py").write_text(example("# sharpness.py"))
    (folder / "my.yaml").write_text(example("# my.yaml") + MORE_REWARDS)
    with serve_config(folder, folder / "my.yaml") as running:
        yield running


@contextmanager
def serve_config(
    folder: Path, config: Path, environment: Mapping[str, str] = os.environ, cwd: Path | None = None
) -> Iterator[Served]:
    """Any config, on free ports; the log lies in `folder`. Ctrl-C ends it."""
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "drpo_rewards.cli", "serve", str(config)]
        process = subprocess.Popen(
            [*command, "--port", "0", "--grpc-port", "0"],
            stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True, env=environment, cwd=cwd,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[:1] == ["ready"], (folder / "log").read_text()
        yield Served(folder, process, ready[1], ready[2])
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, (folder / "log").read_text()
        process.stdout.close()
