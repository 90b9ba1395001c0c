"""drpo-rewards: serve rewards behind the ranking API, ask a running service, or score images without one."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from drpo_rewards.api.contract import ModelInfo, RankResponse
from drpo_rewards.cli import bench, doctor, download, score, upgrade
from drpo_rewards.cli.common import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Metadata,
    Prompt,
    Url,
    add_row,
    busy,
    console,
    errors,
    read_metadata,
    read_weights,
    reasons,
    table,
    told_errors,
)
from drpo_rewards.client import RankingClient

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def serve(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")] = "shapes",
    host: Annotated[str | None, typer.Option(help="Address to listen on, instead of the config's.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port, instead of the config's; 0 takes a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port, likewise.")] = None,
) -> None:
    """Start Ray and the service on this machine; Ctrl-C stops both."""
    from drpo_rewards.cluster.environment import set_ray_environment
    from drpo_rewards.cluster.local_ray import ray_address, start_local_ray, stop_ray

    stopped = threading.Event()
    set_ray_environment(import_from=[Path(config).resolve().parent, Path.cwd()])
    try:
        with told_errors():
            from drpo_rewards.serving import ServiceConfig, start

            settings = ServiceConfig.load(config)
            if host is not None:
                settings = settings.model_copy(update={"host": host})
            with busy("starting Ray and the ranking service (about 30 s)"):
                start_local_ray(listen_host=settings.host)
                service = start(
                    settings,
                    http_port=settings.http_port if port is None else port,
                    grpc_port=settings.grpc_port if grpc_port is None else grpc_port,
                    on_up=lambda name: errors.print(f"{name} is up", highlight=False),
                )
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stopped.set())
            rewards = ", ".join(settings.rewards)
            console.print(f"ready  {service.http_url}  {service.grpc_address}  rewards: {rewards}", soft_wrap=True)
            errors.print(f"a page to try it: {service.http_url}/   Ctrl-C stops it", soft_wrap=True)
            errors.print(f"Ray is at {ray_address()}", soft_wrap=True)
            while not stopped.wait(timeout=0.5):  # a plain wait() would not let Python run the signal's handler
                pass
            with busy("stopping: calls on their way are finished"):
                service.stop(keep_serve=True)
    finally:
        stop_ray()


@app.command()
def rank(
    images: Annotated[list[Path], typer.Argument(help="Two or more PNG, JPEG or WebP files.")],
    prompt: Prompt,
    metadata: Metadata = None,
    mixture: Annotated[str | None, typer.Option(help="A configured mixture.")] = None,
    reward: Annotated[list[str] | None, typer.Option(help="NAME or NAME=WEIGHT; may be given several times.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Rank images with a running service, best first."""
    with told_errors(), RankingClient(url, api_key=api_key) as client:
        response = client.rank(
            prompt,
            images,
            rewards=read_weights(reward),
            mixture=mixture,
            metadata=read_metadata(metadata),
            details=True,
        )
    if as_json:
        console.print_json(response.model_dump_json(exclude_none=True))
    else:
        console.print(_ranking_table(images, response))


@app.command()
def models(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the rewards and mixtures of a running service."""
    with told_errors(), RankingClient(url, api_key=api_key) as client:
        infos = client.models()
    if as_json:
        console.print_json(data=[info.model_dump() for info in infos])
    else:
        console.print(_models_table(infos))


def _ranking_table(images: list[Path], response: RankResponse) -> Table:
    columns = [f"{name} x {result.weight:.2g}" for name, result in response.rewards.items()]
    made = table("rank", "image", "combined", *columns, "says", numbers=["rank", "combined", *columns])
    for index in response.order:
        scores = [f"{result.scores[index]:.4g}" for result in response.rewards.values()]
        says = reasons([result.details[index] for result in response.rewards.values() if result.details])
        add_row(made, response.ranks[index] + 1, images[index], f"{response.combined[index]:.4g}", *scores, says)
    return made


def _models_table(infos: list[ModelInfo]) -> Table:
    made = table("name", "kind", "measures", "range", "version")
    for info in infos:
        weights = ", ".join(f"{name} x {weight:g}" for name, weight in (info.weights or {}).items())
        bounds = f"{info.range[0]:g} to {info.range[1]:g}" if info.range else ""
        add_row(made, info.name, info.kind, weights or info.description, bounds, info.version)
    return made


app.command()(score.score)
app.command()(score.compare)
app.command()(bench.bench)
app.command()(download.download)
app.command()(doctor.doctor)
app.command()(upgrade.upgrade)
