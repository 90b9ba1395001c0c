"""The one place that sets what Ray reads from the environment. Call it before anything imports Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

SETTINGS = {
    "RAY_AUTH_MODE": "disabled",  # unset, it depends on a token file in the home folder, and a client without it hangs
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports nothing to its makers
    "RAY_SERVE_LOG_TO_STDERR": "0",  # replicas log into Ray's log folder
    # Serve kills a listener that is not up after 5 s and starts another one; on a busy machine none ever gets there.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}

TRAINING_SETTINGS = {
    # Ray Train looks at its workers every 2 s by default, and each report waits for a look.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # otherwise workers print everything twice
    # By default Ray's workers run at niceness 15, and hardly get any time where other programs run.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def set_ray_environment(*, for_training: bool = False, import_from: Sequence[Path] = ()) -> None:
    """Set Ray's variables, but none that is set already: a cluster with tokens sets RAY_AUTH_MODE=token itself.

    Args:
        for_training: also set what Ray Train and its workers need.
        import_from: folders from which Ray's workers can import modules, for example a user's own rewards.
    """
    for name, value in (SETTINGS | TRAINING_SETTINGS if for_training else SETTINGS).items():
        os.environ.setdefault(name, value)
    if import_from:
        paths = [*map(str, import_from), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
