"""`rank`: rank images with a running service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from drpo_rewards.cli.options import (
    DEFAULT_URL,
    ApiKeyOption,
    JsonOption,
    MetadataOption,
    PromptOption,
    UrlOption,
    UseProxiesOption,
    read_metadata,
    read_weights,
)
from drpo_rewards.cli.output import add_row, console, join_reasons, table
from drpo_rewards.client import RankingClient
from drpo_rewards.operations.rank import RankResponse


def rank(
    images: Annotated[list[Path], typer.Argument(help="Two or more PNG, JPEG or WebP files.")],
    prompt: PromptOption,
    metadata: MetadataOption = None,
    mixture: Annotated[str | None, typer.Option(help="A mixture of the service's config.")] = None,
    reward: Annotated[list[str] | None, typer.Option(help="NAME or NAME=WEIGHT; may be given several times.")] = None,
    url: UrlOption = DEFAULT_URL,
    api_key: ApiKeyOption = None,
    use_proxies: UseProxiesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank images with a running service, best first."""
    with RankingClient(url, api_key=api_key, use_proxies=use_proxies) as client:
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


def _ranking_table(images: Sequence[Path], response: RankResponse) -> Table:
    columns = [f"{name} x {result.weight:.2g}" for name, result in response.rewards.items()]
    ranking = table("rank", "image", "combined", *columns, "reasons", numbers=["rank", "combined", *columns])
    for index in response.order:
        scores = [f"{result.scores[index]:.4g}" for result in response.rewards.values()]
        reasons = join_reasons([result.details[index] for result in response.rewards.values() if result.details])
        combined = f"{response.combined[index]:.4g}"
        add_row(ranking, response.ranks[index] + 1, images[index], combined, *scores, reasons)
    return ranking
