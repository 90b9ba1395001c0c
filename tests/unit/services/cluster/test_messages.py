"""Where Ray's own messages go in the process that starts it."""

from __future__ import annotations

import pytest
from ray._private import worker

from drpo_rewards.cluster.local_ray import keep_stdout_free


def test_messages_of_ray_go_to_stderr(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Stdout is for what the service says: the first line has its addresses."""
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # given back afterwards
    keep_stdout_free()
    keep_stdout_free()
    message = {"lines": ["WARNING: 8 PYTHON worker processes have been started"], "pid": "raylet", "is_err": False}
    worker.print_to_stdstream(message, ignore_prefix=False)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("8 PYTHON worker processes") == 1
