"""`serve`: start a ranking service on this machine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

import typer

from drpo_rewards.cli.local_reward import import_from
from drpo_rewards.cli.options import ConfigArgument, GrpcPortOption, HostOption, PortOption, read_listeners
from drpo_rewards.cli.output import busy, console, errors, print_findings
from drpo_rewards.process import EndingClock, put_off_in_fork

_clock = EndingClock()
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, `kill`, and the end of the terminal


def serve(
    config: ConfigArgument = "shapes",
    host: HostOption = None,
    port: PortOption = None,
    grpc_port: GrpcPortOption = None,
) -> None:
    """Start Ray and the service on this machine. Ctrl-C stops both.

    First it checks what `doctor` checks, and exits with status 2 if something is wrong. The line `logs: FOLDER` says
    where the logs are: `serve` in it has those of the gateway and the rewards. The folder is below $RAY_TMPDIR,
    $TMPDIR or /tmp, as ray/session_latest/logs.
    """
    from drpo_rewards.cluster.environment import set_ray_environment

    folders = [Path(config).resolve().parent, Path.cwd()]
    set_ray_environment(import_from=folders)
    for folder in folders:
        import_from(folder)
    listeners = read_listeners(host, port, grpc_port)
    with busy("checking"):
        from drpo_rewards.serving.operate.doctor import examine

        findings = examine(config, overrides=listeners, starts_here=True)
    print_findings([finding for finding in findings if finding.state in ("wrong", "warning")])
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(2)

    from drpo_rewards.cluster.local_ray import logs_folder, ray_address, start_local_ray, stop_ray
    from drpo_rewards.serving import ServiceConfig, start

    settings = ServiceConfig.load(config).model_copy(update=listeners)
    ending = [number for number in ENDING if not (number == signal.SIGHUP and _is_ignored(number))]  # as by nohup
    _handle(ending, _end)
    stopped = threading.Event()
    try:
        with busy("starting Ray and the ranking service (about 30 s)"):
            start_local_ray(timeout_s=settings.deploy_timeout_s)
            errors.print(f"logs: {logs_folder()}", markup=False, highlight=False, soft_wrap=True)
            service = start(
                settings,
                http_port=settings.http_port,
                grpc_port=settings.grpc_port,
                on_up=lambda name: errors.print(f"{name} is up", markup=False, highlight=False),
            )
        _handle(ending, lambda *_: stopped.set())
        rewards = ", ".join(settings.rewards)
        console.print(f"ready  {service.http_url}  {service.grpc_address}  rewards: {rewards}", soft_wrap=True)
        errors.print(f"try it in a browser: {service.http_url}/   Ctrl-C stops the service", soft_wrap=True)
        errors.print(f"Ray is at {ray_address()}", soft_wrap=True)
        while not stopped.wait(timeout=0.5):  # without a timeout, Python would not run the signal's handler
            pass
        with busy("stopping after the calls in progress"):
            service.stop(keep_serve=True)
    finally:
        stop_ray()


def _handle(numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> None:
    for number in numbers:
        signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    """End a start that is not complete, with Ray."""
    if not put_off_in_fork(number, frame) and _clock.counts():
        raise SystemExit(128 + number)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN
