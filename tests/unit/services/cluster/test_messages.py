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


def test_how_serve_ends_is_no_failure(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # given back afterwards
    keep_stdout_free()

    def said(line: str) -> str:
        worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
        return capfd.readouterr().err

    killed = "There are infinite retries remaining. Error: The actor is dead because it was killed by `ray.kill`."
    assert said(f"Task ServeController.graceful_shutdown failed. {killed}") == ""
    assert killed in said(f"Task ServeController.deploy_applications failed. {killed}")
    assert "ran out of memory" in said("Task ServeController.graceful_shutdown failed. Error: it ran out of memory")
