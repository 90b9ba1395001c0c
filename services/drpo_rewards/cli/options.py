"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from drpo_rewards.api.plain_json import MAX_DEPTH
from drpo_rewards.reading import read_at_most, why_unreadable
from drpo_rewards.settings.yaml_text import SettingsLoader

MOST_JSON_BYTES = 10_000_000  # of a file with metadata, which may be written with much space between

DEFAULT_URL = "http://127.0.0.1:8000"

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on, instead of the config's.")]
PortOption = Annotated[int | None, typer.Option(help="HTTP port, instead of the config's; 0 takes a free one.")]
GrpcPortOption = Annotated[int | None, typer.Option(help="gRPC port, instead of the config's; 0 takes a free one.")]
UrlOption = Annotated[
    str,
    typer.Option(envvar="DRPO_REWARDS_URL", help="Address of the service: http://HOST:PORT or grpc://HOST:PORT."),
]
ApiKeyOption = Annotated[
    str | None, typer.Option(envvar="DRPO_REWARDS_API_KEY", help="The API key, if the service requires one.")
]
UseProxiesOption = Annotated[
    bool, typer.Option("--use-proxies", help="Go through the proxies that the environment names, e.g. $HTTPS_PROXY.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]
PromptOption = Annotated[str, typer.Option(help="The text that the images were made from.")]
MetadataOption = Annotated[
    str | None,
    typer.Option(help="What rewards need beyond the prompt, e.g. a GenEval spec: a JSON file, or the JSON itself."),
]
ImagesArgument = Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.")]
RewardArgument = Annotated[
    str, typer.Argument(help="A reward of the catalogue, or package.module:Class for your own reward.")
]
ModelOption = Annotated[str | None, typer.Option(help="The reward's checkpoint: a folder, or an id of the model hub.")]
RewardOptions = Annotated[
    list[str] | None, typer.Option(help="KEY=VALUE, an option of the reward; may be given several times.")
]


def read_listeners(host: str | None, port: int | None, grpc_port: int | None) -> dict[str, Any]:
    """Return the settings of a service that the options replace."""
    given = {"host": host, "http_port": port, "grpc_port": grpc_port}
    return {name: value for name, value in given.items() if value is not None}


def read_metadata(text: str | None) -> dict[str, Any] | None:
    """Read a JSON object from the text itself, or from the file that it names."""
    if text is None:
        return None
    if not text.strip():
        raise typer.BadParameter("it is empty; give a JSON object, or a file with one", param_hint="--metadata")
    inline = text.lstrip().startswith(("{", "[", '"')) and not os.path.exists(text)
    try:
        data = json.loads(text if inline else read_at_most(Path(text), MOST_JSON_BYTES).decode("utf-8-sig"))
    except RecursionError:
        raise typer.BadParameter(f"it is nested deeper than {MAX_DEPTH} levels", param_hint="--metadata") from None
    except (OSError, ValueError) as error:
        problem = "the text is not valid JSON" if inline else f"cannot read {text}"
        reason = error.strerror if isinstance(error, OSError) else why_unreadable(error)
        raise typer.BadParameter(f"{problem}: {reason}", param_hint="--metadata") from None
    if not isinstance(data, dict):
        raise typer.BadParameter(f"{text} is not a JSON object", param_hint="--metadata")
    return data


def read_weights(entries: Sequence[str] | None) -> dict[str, float] | None:
    """Read weights from a list of NAME or NAME=WEIGHT."""
    weights = {}
    for entry in entries or ():
        name, _, weight = entry.partition("=")
        if not name:
            raise typer.BadParameter(f"{entry!r} names no reward; write NAME or NAME=WEIGHT", param_hint="--reward")
        if name in weights:
            raise typer.BadParameter(f"{name} is there twice; keep one", param_hint="--reward")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise typer.BadParameter(f"{entry!r}: write NAME=WEIGHT with a number", param_hint="--reward") from None
    return weights or None


def read_options(entries: Sequence[str] | None) -> dict[str, Any]:
    """Read options from a list of KEY=VALUE. Values are YAML: 3 is a number, true a boolean, [1, 2] a list."""
    options = {}
    for entry in entries or ():
        key, equals, value = entry.partition("=")
        if not equals:
            raise typer.BadParameter(f"{entry!r}: write KEY=VALUE", param_hint="--option")
        try:
            options[key] = yaml.load(value, SettingsLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
            reason = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error)
            raise typer.BadParameter(f"{entry!r} has no YAML value: {reason}", param_hint="--option") from None
    return options
