"""What the user of a failed run is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import OutOfMemoryError
from ray.train import WorkerGroupError

from drpo.cluster.launch import _Fit
from drpo.config import load_config
from drpo.errors import TrainingStoppedError

# As Ray 2.60 words it; what each process used stands between.
KILLED = """1 worker(s) were killed due to the node running low on memory.
Memory on the node (IP: 127.0.0.1) was 23.1GB / 24.1GB (0.96), which exceeds the memory usage threshold of 0.95.
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/. To adjust
the kill threshold, set the environment variable `RAY_memory_usage_threshold` when starting Ray."""


def test_a_machine_without_memory_is_said_in_our_words(tmp_path: Path) -> None:
    fit = _Fit(load_config("shapes"), tmp_path, None, [])
    for text in (KILLED, KILLED.splitlines()[-2]):
        fit._error = WorkerGroupError("", {0: OutOfMemoryError(text)})
        with pytest.raises(TrainingStoppedError, match=r"no memory left.*training\.num_workers") as error:
            fit.result()
        assert "RAY_" not in str(error.value)
        assert f"--resume {tmp_path}" in str(error.value)
