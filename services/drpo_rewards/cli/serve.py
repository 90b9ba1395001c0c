"""`serve`: start a ranking service on this machine."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from drpo_rewards.cli.output import busy, console, errors, exit_on_error


def serve(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")] = "shapes",
    host: Annotated[str | None, typer.Option(help="Address to listen on, instead of the config's.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port, instead of the config's; 0 takes a free one.")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="gRPC port, instead of the config's; 0 takes a free one.")
    ] = None,
) -> None:
    """Start Ray and the service on this machine. Ctrl-C stops both."""
    from drpo_rewards.cluster.environment import set_ray_environment
    from drpo_rewards.cluster.local_ray import ray_address, start_local_ray, stop_ray

    stopped = threading.Event()
    set_ray_environment(import_from=[Path(config).resolve().parent, Path.cwd()])
    with exit_on_error():
        from drpo_rewards.serving import ServiceConfig, start

        settings = ServiceConfig.load(config)
        if host is not None:
            settings = settings.model_copy(update={"host": host})
        try:
            with busy("starting Ray and the ranking service (about 30 s)"):
                start_local_ray(listen_host=settings.host)
                service = start(
                    settings,
                    http_port=settings.http_port if port is None else port,
                    grpc_port=settings.grpc_port if grpc_port is None else grpc_port,
                    on_up=lambda name: errors.print(f"{name} is up", highlight=False),
                )
            for signal_number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signal_number, lambda *_: stopped.set())
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
