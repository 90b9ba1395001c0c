"""The one place that sets what Ray reads from the environment. Call it before anything imports Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

SETTINGS = {
    "RAY_AUTH_MODE": "disabled",  # if unset, a token file in the home folder decides, and a client without it hangs
    "RAY_USAGE_STATS_ENABLED": "0",  # send no usage statistics
    "RAY_SERVE_LOG_TO_STDERR": "0",  # replicas log into Ray's log folder
    "RAY_prestart_worker_first_driver": "0",  # start no processes that may never be used
    # What Ray does all the time, however little is asked of it: less often, an idle service takes half.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.75",  # by default every 0.1 s, Serve looks at its replicas
    "RAY_raylet_report_resources_period_milliseconds": "500",  # by default a node tells the head every 0.1 s
    "RAY_raylet_check_gc_period_milliseconds": "1000",  # by default it asks every 0.1 s whether memory is short
    "REPORTER_UPDATE_INTERVAL_MS": "30000",  # by default every 5 s, Ray looks at all processes of the machine
    "RAY_task_events_report_interval_ms": "10000",  # by default each process tells the head every second
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",  # by default each replica exports its metrics every 0.1 s
    "RAY_enable_metrics_collection": "0",  # of Ray itself, for a dashboard that is off here; the gateway has its own
    # On a busy machine everything takes longer than Ray expects, and what it gives up and starts again is never up.
    "RAY_worker_register_timeout_seconds": "300",  # until a worker has started; by default 60
    "RAY_agent_register_timeout_ms": "300000",  # until the node reaches its agent; by default 30 s
}

PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
NOT_PROXIED = ("no_proxy", "no_grpc_proxy")  # gRPC reads its own, and the other if that is not set
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")

TRAINING_SETTINGS = {
    # By default Ray Train polls its workers every 2 s, and each report waits for the next poll. Each takes CPU time.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # otherwise workers print everything twice
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more, which tells workers of something they do not ask for
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
    _leave_proxies_out()
    if import_from:
        paths = [*map(str, import_from), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def _leave_proxies_out() -> None:
    """Keep calls within this machine from a proxy that the environment names, which could not reach them."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    for name in NOT_PROXIED:
        given = [os.environ.get(name, ""), os.environ.get(name.upper(), ""), os.environ.get("no_proxy", "")]
        hosts = [host.strip() for hosts in given for host in hosts.split(",")]
        os.environ[name] = ",".join(dict.fromkeys([*filter(None, hosts), *THIS_MACHINE]))
        os.environ[name.upper()] = os.environ[name]
