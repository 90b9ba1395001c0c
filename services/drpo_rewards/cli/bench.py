"""`bench`: put a load on a running service, or measure one reward's throughput in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from drpo_rewards.api.images import ImageLike, load
from drpo_rewards.cli.bench_reward import bench_reward
from drpo_rewards.cli.options import (
    DEFAULT_URL,
    ApiKeyOption,
    JsonOption,
    MetadataOption,
    ModelOption,
    RewardOptions,
    UrlOption,
    UseProxiesOption,
    read_metadata,
    read_options,
)
from drpo_rewards.cli.output import add_row, console, errors, table
from drpo_rewards.client import AsyncRankingClient
from drpo_rewards.client.load import Encoding, LoadResult, draw_groups, run_load
from drpo_rewards.errors import InvalidRequestError

GROUPS = 8  # different groups, which are sent in turn


def bench(
    url: UrlOption = DEFAULT_URL,
    clients: Annotated[
        list[int] | None, typer.Option(min=1, max=10_000, help="Number of clients; repeat it for a row each.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Length of each load, or of each batch size with --reward.")
    ] = 10.0,
    requests: Annotated[int | None, typer.Option(min=1, help="Stop after this many groups, if that is sooner.")] = None,
    group_size: Annotated[int, typer.Option(min=2, max=256, help="Images in one group.")] = 16,
    side: Annotated[
        int, typer.Option(min=8, max=4096, help="Width and height of the generated images, in pixels.")
    ] = 256,
    encoding: Annotated[
        Encoding, typer.Option(help="How the generated images are sent; rgb8 is plain pixels.")
    ] = "rgb8",
    image: Annotated[
        list[Path] | None, typer.Option(help="Send this file instead of generated images; give two or more.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="The prompt of every group.")] = "a red circle",
    metadata: MetadataOption = None,
    mixture: Annotated[
        str | None, typer.Option(help="A mixture of the service's config, or the name of one reward.")
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            help="How often to repeat a call that failed for a temporary reason; at 0, each failure is an error.",
        ),
    ] = 0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one call may take.")] = 60.0,
    api_key: ApiKeyOption = None,
    use_proxies: UseProxiesOption = False,
    reward: Annotated[str | None, typer.Option(help="Measure this reward in this process, without a service.")] = None,
    model: ModelOption = None,
    option: RewardOptions = None,
    device: Annotated[str | None, typer.Option(help="With --reward: auto, cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="With --reward: auto, float32, float16 or bfloat16.")] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=1, max=65_536, help="With --reward: images in a batch; repeat it for a row each."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a load on a running service: images/s, latencies and errors. With --reward, measure one reward instead.

    Each client has its own connection and sends one group after the other. Overload answers (429) count as errors,
    unless --retries lets the client wait and try again, as programs should.

    --reward NAME scores generated images (or --image) in this process, in batches of each --batch-size, for about
    --seconds. It prints separate times for decoding, for preparing images and prompts, and for the model.
    """
    if reward is not None:
        given = {name: value for name, value in (("model", model), ("device", device), ("dtype", dtype)) if value}
        reward_options = read_options(option) | given
        bench_reward(
            reward, reward_options, batch_size, seconds, side, encoding, image, prompt, read_metadata(metadata), as_json
        )
        return
    options: dict[str, Any] = {"metadata": read_metadata(metadata)}
    settings: dict[str, Any] = {
        "api_key": api_key,
        "use_proxies": use_proxies,
        "retries": retries,
        "timeout_s": timeout,
    }

    def connect() -> AsyncRankingClient:
        return AsyncRankingClient(url, max_in_flight=1, **settings)

    groups: list[list[ImageLike]]
    groups = [[load(path) for path in image]] if image else draw_groups(GROUPS, group_size, side, encoding)
    options |= asyncio.run(_warm_up(connect, prompt, groups[0], mixture, options))
    results = [
        _load_with_bar(connect, prompt, groups, count, seconds, requests, options) for count in clients or [1, 4, 16]
    ]
    if as_json:
        console.print_json(data=[result.summary() for result in results])
    else:
        _print(results)
    if not any(result.latencies_s for result in results):
        raise typer.Exit(1)


async def _warm_up(
    connect: Callable[[], AsyncRankingClient],
    prompt: str,
    group: list[ImageLike],
    mixture: str | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Send one group, to warm up and to fail early. Return the option that selects `mixture`."""
    selection: dict[str, Any] = {}
    async with connect() as client:
        if mixture is not None:
            is_reward = any(info.name == mixture and info.kind == "reward" for info in await client.models())
            selection = {"rewards": {mixture: 1.0}} if is_reward else {"mixture": mixture}
        try:
            await client.rank(prompt, group, **options, **selection)
        except InvalidRequestError as error:
            if error.field == "metadata" and options["metadata"] is None:
                error.message += """; try --metadata '{"include": [{"class": "circle", "color": "red"}]}'"""
            raise
    return selection


def _load_with_bar(
    connect: Callable[[], AsyncRankingClient],
    prompt: str,
    groups: list[list[ImageLike]],
    clients: int,
    seconds: float,
    requests: int | None,
    options: dict[str, Any],
) -> LoadResult:
    name, bar, numbers = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[numbers]}")
    columns = SpinnerColumn(), name, bar, TimeElapsedColumn(), numbers
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task(f"{clients} client{'s' * (clients > 1)}", total=1.0, numbers="")

        def show(result: LoadResult) -> None:
            answered = len(result.latencies_s) + result.errors.total()
            done = max(result.seconds / seconds, answered / requests if requests else 0.0)
            failed = f"  [red]{result.errors.total()} errors[/]" if result.errors else ""
            progress.update(task, completed=min(1.0, done), numbers=f"{result.images_per_s:.0f} images/s{failed}")

        load = run_load(
            connect, prompt, groups, clients=clients, seconds=seconds, requests=requests, on_answer=show, **options
        )
        return asyncio.run(load)


def _print(results: list[LoadResult]) -> None:
    columns = ["clients", "images/s", "groups/s", "p50 ms", "p95 ms", "p99 ms", "groups", "errors"]
    rows = table(*columns, numbers=columns)
    for result in results:
        latencies = [f"{value:.1f}" for value in result.percentiles_ms().values()] or ["-"] * 3
        per_s = result.images_per_s
        failed = ", ".join(f"{count} {code}" for code, count in result.errors.items()) or "0"
        rates = f"{per_s:.1f}", f"{per_s / result.group_size:.1f}"
        add_row(rows, result.clients, *rates, *latencies, len(result.latencies_s), failed)
    console.print(rows)
    console.print(f"groups of {results[0].group_size} images")
    for message in dict.fromkeys(result.first_error for result in results if result.first_error):
        errors.print(f"[yellow]one of the errors:[/yellow] {escape(message)}", highlight=False, soft_wrap=True)
