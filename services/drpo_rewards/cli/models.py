"""`models`: list the rewards and mixtures of a running service."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.cli.options import DEFAULT_URL, ApiKeyOption, JsonOption, UrlOption, UseProxiesOption
from drpo_rewards.cli.output import add_row, console, table
from drpo_rewards.client import RankingClient


def models(
    url: UrlOption = DEFAULT_URL,
    api_key: ApiKeyOption = None,
    use_proxies: UseProxiesOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the rewards and mixtures of a running service."""
    with RankingClient(url, api_key=api_key, use_proxies=use_proxies) as client:
        infos = client.models()
    if as_json:
        console.print_json(data=[info.model_dump() for info in infos])
    else:
        console.print(_models_table(infos))


def _models_table(infos: Sequence[ModelInfo]) -> Table:
    listed = table("name", "kind", "measures", "needs", "range", "version")
    for info in infos:
        weights = ", ".join(f"{name} x {weight:g}" for name, weight in (info.weights or {}).items())
        bounds = f"{info.range[0]:g} to {info.range[1]:g}" if info.range else ""
        add_row(listed, info.name, info.kind, weights or info.description, _needs(info), bounds, info.version)
    return listed


def _needs(info: ModelInfo) -> str:
    """Describe what a request must have beyond a prompt and images. Mixtures need what their rewards need."""
    if info.kind == "mixture":
        return ""
    return "; ".join(filter(None, ["metadata" if info.needs_metadata else "", info.needs_in_prompt]))
