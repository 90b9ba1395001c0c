"""The one place that sets what Ray reads from the environment. Call it before anything imports Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

SETTINGS = {
    "RAY_AUTH_MODE": "disabled",  # if unset, a token file in the home folder decides, and a client without it hangs
    "RAY_USAGE_STATS_ENABLED": "0",  # send no usage statistics
    "RAY_SERVE_LOG_TO_STDERR": "0",  # replicas log into Ray's log folder
    # By default Serve restarts a listener that is not up after 5 s; on a busy machine none would ever be up.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Serve's HTTP proxy makes odd headers harmless before it reads them.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "drpo_rewards.serving.proxy.middlewares",
}

TRAINING_SETTINGS = {
    # By default Ray Train polls its workers every 2 s, and each report waits for the next poll.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # otherwise workers print everything twice
    # By default Ray's workers run at niceness 15, and get hardly any time if other programs run.
    "RAY_worker_niceness": "0",
    # Let a process that requests no GPU see all of them: the driver evaluates on one after its workers have freed it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def set_ray_environment(*, for_training: bool = False, import_from: Sequence[Path] = ()) -> None:
    """Set Ray's environment variables, except those that are set already, as a cluster's RAY_AUTH_MODE=token is.

    Args:
        for_training: also set what Ray Train and its workers need.
        import_from: folders from which Ray's workers can import modules, for example a user's own rewards.
    """
    for name, value in (SETTINGS | TRAINING_SETTINGS if for_training else SETTINGS).items():
        os.environ.setdefault(name, value)
    if import_from:
        paths = [*map(str, import_from), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
