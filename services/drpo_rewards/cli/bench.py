"""`bench`: a load against a running service, or one reward's throughput in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from drpo_rewards.api.images import ImageLike, load
from drpo_rewards.cli.bench_reward import bench_reward
from drpo_rewards.cli.common import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Metadata,
    Url,
    add_row,
    console,
    errors,
    read_metadata,
    table,
    told_errors,
)
from drpo_rewards.cli.score import Model, Option, read_options
from drpo_rewards.client import AsyncRankingClient
from drpo_rewards.client.load import Encoding, LoadResult, made_up_groups, run_load
from drpo_rewards.errors import InvalidRequestError

GROUPS = 8  # different groups that are sent in turn


def bench(
    url: Url = DEFAULT_URL,
    clients: Annotated[list[int] | None, typer.Option(min=1, help="At a time; several times for a row each.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each load.")] = 10.0,
    requests: Annotated[int | None, typer.Option(min=1, help="End after so many groups, if that is sooner.")] = None,
    group_size: Annotated[int, typer.Option(min=2, max=256, help="Images of one group.")] = 16,
    side: Annotated[int, typer.Option(min=8, help="Width and height of the made-up images, in pixels.")] = 256,
    encoding: Annotated[Encoding, typer.Option(help="How the made-up images travel; rgb8 is plain pixels.")] = "rgb8",
    image: Annotated[list[Path] | None, typer.Option(help="Send these files instead; give two or more.")] = None,
    prompt: Annotated[str, typer.Option(help="The prompt of every group.")] = "a red circle",
    metadata: Metadata = None,
    mixture: Annotated[str | None, typer.Option(help="A configured mixture, or one reward by its name.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="Of a call that may be tried again; 0 counts it an error.")] = 0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one call may take.")] = 60.0,
    api_key: ApiKey = None,
    reward: Annotated[str | None, typer.Option(help="Bench this reward in this process, without a service.")] = None,
    model: Model = None,
    option: Option = None,
    device: Annotated[str | None, typer.Option(help="With --reward: auto, cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="With --reward: auto, float32, float16 or bfloat16.")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="With --reward; several times.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a load on a running service: images/s, latencies and errors. With --reward: one reward in this process.

    Clients send one group after the other, each over a connection of its own. Overload answers (429) count as errors
    unless --retries lets the client wait them out, as programs should.

    --reward NAME scores made-up images (or --image) in batches of each --batch-size for about --seconds, and tells the
    time to decode files, to prepare pictures and prompts, and to run the model apart.
    """
    if reward is not None:
        placed = {name: value for name, value in (("model", model), ("device", device), ("dtype", dtype)) if value}
        reward_options = read_options(option) | placed
        bench_reward(
            reward, reward_options, batch_size, seconds, side, encoding, image, prompt, read_metadata(metadata), as_json
        )
        return
    options: dict[str, Any] = {"metadata": read_metadata(metadata)}

    def connect() -> AsyncRankingClient:
        return AsyncRankingClient(url, api_key=api_key, retries=retries, timeout_s=timeout, max_in_flight=1)

    with told_errors():
        groups: list[list[ImageLike]]
        groups = [[load(path) for path in image]] if image else made_up_groups(GROUPS, group_size, side, encoding)
        options |= asyncio.run(_first_call(connect, prompt, groups[0], mixture, options))
        results = [
            _load_with_bar(connect, prompt, groups, count, seconds, requests, options)
            for count in clients or [1, 4, 16]
        ]
    if as_json:
        console.print_json(data=[result.summary() for result in results])
    else:
        _print(results)
    if not any(result.latencies_s for result in results):
        raise typer.Exit(1)


async def _first_call(
    connect: Any, prompt: str, group: list[ImageLike], mixture: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Warms up and fails early; answers which option asks for `mixture`."""
    chosen: dict[str, Any] = {}
    async with connect() as client:
        if mixture is not None:
            is_reward = any(info.name == mixture and info.kind == "reward" for info in await client.models())
            chosen = {"rewards": {mixture: 1.0}} if is_reward else {"mixture": mixture}
        try:
            await client.rank(prompt, group, **options, **chosen)
        except InvalidRequestError as error:
            if error.field == "metadata" and options["metadata"] is None:
                error.message += """; try --metadata '{"include": [{"class": "circle", "color": "red"}]}'"""
            raise
    return chosen


def _load_with_bar(
    connect: Any,
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
    made = table(*columns, numbers=columns)
    for result in results:
        latencies = [f"{value:.1f}" for value in result.percentiles_ms().values()] or ["-"] * 3
        per_s = result.images_per_s
        failed = ", ".join(f"{count} {code}" for code, count in result.errors.items()) or "0"
        rates = f"{per_s:.1f}", f"{per_s / result.group_size:.1f}"
        add_row(made, result.clients, *rates, *latencies, len(result.latencies_s), failed)
    console.print(made)
    console.print(f"groups of {results[0].group_size} images")
    for said in dict.fromkeys(result.first_error for result in results if result.first_error):
        errors.print(f"[yellow]an error was[/yellow] {escape(said)}", highlight=False, soft_wrap=True)
