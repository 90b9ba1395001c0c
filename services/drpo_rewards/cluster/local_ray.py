"""Start a Ray on this machine, or join one that runs already.

Imports Ray only inside functions, because Ray reads its environment when it is imported.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from drpo_rewards.cluster import loopback
from drpo_rewards.cluster.environment import set_ray_environment
from drpo_rewards.cluster.probe import check_is_ray
from drpo_rewards.cluster.ray_folder import find_ray_folder
from drpo_rewards.cluster.watchdog import Watchdog
from drpo_rewards.errors import ServiceUnavailableError

LEAST_CPUS = 4  # Ray is started with at least this many logical CPUs
START_S = 300.0  # until Ray must be up; Ray's own limit of 30 s is too short for a busy machine

# Serve's own way to end is to kill its controller, whose open calls Ray then reports.
SERVE_IS_SHUT_DOWN = re.compile(
    r"Task ServeController\.(graceful_shutdown|listen_for_change) failed\b[^`]* killed by `ray\.kill`"
)

_watchdogs: list[Watchdog] = []  # of the Ray that this process has started


def start_local_ray(num_cpus: int | None = None, *, timeout_s: float = START_S) -> None:
    """Start a Ray that only this machine can reach, without log output. It ends with this process, or with `stop_ray`.

    Args:
        num_cpus: logical CPUs that Ray may hand out; by default those of the machine, but at least 4.
        timeout_s: seconds until it must be up.

    Raises:
        ConfigError: there is no folder for its sockets and logs.
        ServiceUnavailableError: it did not start.
    """
    set_ray_environment()
    folder = find_ray_folder() / "ray"
    silence_serve()
    keep_stdout_free()
    import ray

    hook = f"{loopback.__name__}.{loopback.bind_grpc_servers.__name__}"

    def start(patience: _Patience) -> None:
        with loopback.loopback_only(), patience.waiting_for_node(), keep_own_handler(), in_own_session():
            ray.init(
                address="local",
                num_cpus=num_cpus or max(LEAST_CPUS, os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"worker_process_setup_hook": hook},
                _temp_dir=str(folder),
            )

    watchdog = Watchdog(folder, os.getpid())
    try:
        patience = _Patience(timeout_s)
        while True:
            try:
                start(patience)
                break
            except _NodeDiedError:  # a second start is faster, because the machine has read Ray's files
                ray.shutdown()
                if patience.is_over():
                    raise
        watchdog.watch(str(logs_folder().parent))
        # One reads all logs all the time, for a driver that wants none; the other starts machines, and has no others.
        _node().kill_log_monitor(check_alive=False)
        _node().kill_monitor(check_alive=False)
    except BaseException as error:
        ray.shutdown()
        watchdog.let_go()
        if not isinstance(error, Exception):
            raise
        raise ServiceUnavailableError(
            f"Ray could not start: {_explain(error, timeout_s)}; its logs: {folder}"
        ) from error
    _watchdogs.append(watchdog)


def join_ray(address: str) -> None:
    """Connect to the Ray at `address` (`auto`, HOST:PORT or ray://HOST:PORT), without its log output.

    Raises:
        ServiceUnavailableError: no Ray answers there.
    """
    set_ray_environment()
    silence_serve()
    keep_stdout_free()
    to_loopback = loopback.loopback_only() if reach_ray(address) else nullcontext()
    import ray

    try:
        with to_loopback, keep_own_handler():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreachable(address, error) from error


def reach_ray(address: str) -> bool:
    """Return whether the Ray at `address` answers on the loopback interface only.

    Args:
        address: see `join_ray`.

    Raises:
        ServiceUnavailableError: no Ray answers there.
    """
    set_ray_environment()
    try:
        only_here = loopback.listens_on_loopback_only(address)
        check_is_ray(address)
        return only_here
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> ServiceUnavailableError:
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else None
    where = f"auto, which is {named} by RAY_ADDRESS" if named else address
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ServiceUnavailableError(f"no Ray can be reached at {where}: {reason}")


def ray_address() -> str:
    """Return the address at which other processes reach the Ray that this process is connected to."""
    import ray

    return ray.get_runtime_context().gcs_address


def logs_folder() -> Path:
    """Return the folder with the logs of the Ray that this process belongs to. Those of Serve are in `serve` in it."""
    return Path(_node().get_logs_dir_path())


def stop_ray() -> None:
    """End the Ray that `start_local_ray` started, or disconnect from the one that `join_ray` joined."""
    import ray

    ray.shutdown()
    while _watchdogs:
        _watchdogs.pop().let_go()


@contextmanager
def keep_own_handler() -> Iterator[None]:
    """Within this block, `ray.init` leaves this process its own handler of SIGTERM, if it has one.

    Ray sets one in Python, and its C++ code another one, as soon as it is made, which ends the process at once.
    """
    from ray import _raylet
    from ray._private import utils

    raylet: Any = _raylet
    own = signal.getsignal(signal.SIGTERM)
    if own == signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    set_handler, make_core_worker = utils.set_sigterm_handler, raylet.CoreWorker

    def make_and_restore(*arguments: Any, **options: Any) -> Any:
        made = make_core_worker(*arguments, **options)
        signal.signal(signal.SIGTERM, own)
        return made

    utils.set_sigterm_handler = lambda handler: None
    raylet.CoreWorker = make_and_restore
    try:
        yield
    finally:
        utils.set_sigterm_handler, raylet.CoreWorker = set_handler, make_core_worker
        signal.signal(signal.SIGTERM, own)  # also if it was not made


@contextmanager
def in_own_session() -> Iterator[None]:
    """Within this block, Ray's processes start in a session of their own.

    A signal to the whole process group, as `timeout` and many supervisors send it, is then for this process alone,
    which ends its Ray when it is done. If Ray ended at once, nothing could be written any more.
    """
    from ray._private import services

    private: Any = services
    popen = private.ConsolePopen
    private.ConsolePopen = partial(popen, start_new_session=True)
    try:
        yield
    finally:
        private.ConsolePopen = popen


def silence_serve(level: int = logging.WARNING) -> None:
    """Show only messages of `level` and above from Ray Serve, if it is installed.

    Importing Serve sets this level itself, so it is imported first.
    """
    with suppress(ImportError):
        import ray.serve  # noqa: F401
    logging.getLogger("ray.serve").setLevel(level)


def keep_stdout_free() -> None:
    """Let this process print Ray's own messages to stderr, such as "8 workers have been started".

    Ray prints them to stdout, where programs that start a service read its addresses. It has no setting for that.
    What it says of every Serve that is shut down, as if a task had failed, is left out.
    """
    from ray._private import worker

    printing = worker.print_to_stdstream
    if getattr(printing, "to_stderr", False):
        return

    def print_to_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        lines = [line for line in data["lines"] if not SERVE_IS_SHUT_DOWN.search(line)]
        if lines:
            printing({**data, "lines": lines, "is_err": True}, ignore_prefix)

    print_to_stderr.to_stderr = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = print_to_stderr


def _node() -> Any:
    """Return Ray's node, which has started the processes of this machine."""
    from ray._private import worker

    return worker.global_worker.node


class _NodeDiedError(Exception):
    """Ray's node ended while it started. It gives its agent only 15 s to start, which no setting changes.

    No RuntimeError, because Ray takes that for a node that is not up yet.
    """


class _Patience:
    """Lets `ray.init` wait until its node is up. It has no setting for that, and gives up after 30 s.

    It also waits for the head in one call, in which no signal has an effect. Here that is a call every half second.

    Args:
        timeout_s: seconds, for all attempts together.
    """

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s

    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._deadline

    @contextmanager
    def waiting_for_node(self) -> Iterator[None]:
        """Within this block, `ray.init` waits until the time is over, or its head or its node has died."""
        from ray._private import node, services

        get_node, find_port = services.get_node, node.wait_for_persisted_port
        earlier = {child.pid for child in _find_started("raylet", "gcs_server")}

        def has_died(name: str) -> bool:
            return any(one.status() == "zombie" for one in _find_started(name) if one.pid not in earlier)

        def find_port_patiently(*names: str, timeout_ms: int) -> int:
            while True:
                try:
                    return find_port(*names, timeout_ms=500)
                except RuntimeError:  # the head is not up yet
                    if self.is_over():
                        raise TimeoutError from None
                    if has_died("gcs_server"):
                        raise RuntimeError("its head died; gcs_server.err in its logs says why") from None

        def get_node_patiently(gcs_address: str, node_id: str) -> Any:
            while True:
                try:
                    return get_node(gcs_address, node_id)
                except RuntimeError:  # the node is not up yet
                    if self.is_over():
                        raise TimeoutError from None
                    if has_died("raylet"):
                        raise _NodeDiedError("its node died; raylet.err in its logs says why") from None
                time.sleep(0.1)

        services.get_node, node.wait_for_persisted_port = get_node_patiently, find_port_patiently
        try:
            yield
        finally:
            services.get_node, node.wait_for_persisted_port = get_node, find_port


def _find_started(*names: str) -> list[Any]:
    """Ray's processes of these names that this process has started, also those that have ended."""
    import psutil

    return [child for child in psutil.Process().children() if child.name() in names]


def _explain(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return (
            f"it was not up after {timeout_s:g} s; end other programs, or give a service more time by deploy_timeout_s"
        )
    return (str(error).strip() or type(error).__name__).splitlines()[0]
