"""drpo-rewards: serve rewards behind the ranking API, rank images with a running service, list its models."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from drpo_rewards.client import RankingClient
from drpo_rewards.contract import ModelInfo, RankResponse
from drpo_rewards.errors import RewardsError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console()
errors = Console(stderr=True)

Url = Annotated[str, typer.Option(help="Address of the service: http://HOST:PORT or grpc://HOST:PORT.")]
ApiKey = Annotated[str | None, typer.Option(envvar="DRPO_REWARDS_API_KEY", help="Where the service asks for one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]
DEFAULT_URL = "http://127.0.0.1:8000"


@app.command()
def serve(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")] = "shapes",
    host: Annotated[str | None, typer.Option(help="Address to listen on, instead of the config's.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port, instead of the config's; 0 takes a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port, likewise.")] = None,
) -> None:
    """Start Ray and the service on this machine; Ctrl-C stops both."""
    from drpo_rewards.local_ray import start_ray, stop_ray

    stopped = threading.Event()
    try:
        with errors.status("starting Ray and the ranking service (about 30 s)"):
            start_ray()
            from drpo_rewards.serving import ServiceConfig, start

            settings = ServiceConfig.load(config)
            if host is not None:
                settings = settings.model_copy(update={"host": host})
            service = start(
                settings,
                http_port=settings.http_port if port is None else port,
                grpc_port=settings.grpc_port if grpc_port is None else grpc_port,
            )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        rewards = ", ".join(settings.rewards)
        console.print(f"ready  {service.http_url}  {service.grpc_address}  rewards: {rewards}", soft_wrap=True)
        errors.print("Ctrl-C stops it")
        while not stopped.wait(timeout=0.5):  # a plain wait() would not let Python run the signal's handler
            pass
        with errors.status("stopping: calls on their way are finished"):
            service.stop(keep_serve=True)
    except RewardsError as error:
        _fail(error)
    finally:
        stop_ray()


@app.command()
def rank(
    images: Annotated[list[Path], typer.Argument(help="Two or more PNG, JPEG or WebP files.")],
    prompt: Annotated[str, typer.Option(help="What the images were made from.")],
    metadata: Annotated[Path | None, typer.Option(help="JSON file that rewards need, e.g. a GenEval spec.")] = None,
    mixture: Annotated[str | None, typer.Option(help="A configured mixture.")] = None,
    reward: Annotated[list[str] | None, typer.Option(help="NAME or NAME=WEIGHT; may be given several times.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Rank images with a running service, best first."""
    try:
        with RankingClient(url, api_key=api_key) as client:
            response = client.rank(
                prompt,
                images,
                rewards=_weights(reward) if reward else None,
                mixture=mixture,
                metadata=_read_json(metadata) if metadata else None,
                details=True,
            )
    except RewardsError as error:
        _fail(error)
    if as_json:
        console.print_json(response.model_dump_json(exclude_none=True))
    else:
        console.print(_ranking_table(images, response))


@app.command()
def models(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the rewards and mixtures of a running service."""
    try:
        with RankingClient(url, api_key=api_key) as client:
            infos = client.models()
    except RewardsError as error:
        _fail(error)
    if as_json:
        console.print_json(data=[info.model_dump() for info in infos])
    else:
        console.print(_models_table(infos))


def _ranking_table(images: list[Path], response: RankResponse) -> Table:
    table = Table("rank", "image", "combined")
    for name, result in response.rewards.items():
        table.add_column(f"{name} x {result.weight:.2g}")
    table.add_column("says")
    for index in response.order:
        details = [result.details[index] for result in response.rewards.values() if result.details]
        says = "; ".join(str(reason) for detail in details if detail for reason in detail.get("reasons", []))
        scores = [f"{result.scores[index]:.4g}" for result in response.rewards.values()]
        table.add_row(
            str(response.ranks[index] + 1), str(images[index]), f"{response.combined[index]:.4g}", *scores, says
        )
    return table


def _models_table(infos: list[ModelInfo]) -> Table:
    table = Table("name", "kind", "measures", "range", "version")
    for info in infos:
        weights = ", ".join(f"{name} x {weight:g}" for name, weight in (info.weights or {}).items())
        bounds = f"{info.range[0]:g} to {info.range[1]:g}" if info.range else ""
        table.add_row(info.name, info.kind, weights or info.description, bounds, info.version)
    return table


def _weights(given: list[str]) -> dict[str, float]:
    weights = {}
    for text in given:
        name, _, weight = text.partition("=")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise typer.BadParameter(f"{text!r}: write NAME=WEIGHT with a number", param_hint="--reward") from None
    return weights


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"cannot read {path}: {error}", param_hint="--metadata") from None
    if not isinstance(data, dict):
        raise typer.BadParameter(f"{path} holds no JSON object", param_hint="--metadata")
    return data


def _fail(error: RewardsError) -> NoReturn:
    errors.print(f"[red]error[/red] ({error.code}): {error}", highlight=False)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
