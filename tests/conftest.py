"""Settings for every test. Ray reads its environment variables at import, so they are set here first."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from hypothesis import settings

TESTS = Path(__file__).parent

# A test of a busy machine is not wrong because an example took long.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# A shell that runs this in the background makes it and its children ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_SERVE_LOG_TO_STDERR="0",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
    RAY_TRAIN_ENABLE_PRINT_PATCH="0",
    RAY_worker_niceness="0",
    # Ray's workers import support.rewards
    PYTHONPATH=os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])),
)
