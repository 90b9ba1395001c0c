"""`drpo preferences`: list the sources of preferences, look at a set, and encode its images before a run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from drpo.cli.common import Application, SettingsCommand, console, say
from drpo.config import Config, load_config
from drpo.errors import ConfigError

app = Application(
    no_args_is_help=True, help="Chosen and rejected images: list the sources, look at a set, encode its images."
)

Preset = Annotated[str, typer.Argument(help="The name of a preset, or a YAML file, with a section `offline`.")]


@app.command("list")
def list_sources() -> None:
    """List the sources."""
    from drpo.data.preferences import PREFERENCE_SOURCES, find_preference_source

    table = Table(box=None, show_header=False)
    for name in PREFERENCE_SOURCES:
        table.add_row(name, Text(find_preference_source(name).about))
    console.print(table)


@app.command(cls=SettingsCommand)
def show(
    context: typer.Context,
    preset: Preset,
    count: Annotated[int, typer.Option(min=0, help="Prompts to print.")] = 5,
) -> None:
    """Read the set as a run would, without its images, and print how many prompts it has, and some of them."""
    from drpo.data.preferences import read_preference_prompts

    settings = _read_settings(preset, context).offline
    assert settings is not None
    prompts = read_preference_prompts(settings)
    if prompts is None:
        say("the set is on the hub, and its prompts are known when it is encoded")
        return
    say(f"preferences for {len(prompts)} different prompts")
    for prompt in prompts[:count]:
        say(f"  {prompt}")


@app.command(cls=SettingsCommand)
def encode(context: typer.Context, preset: Preset) -> None:
    """Encode the images of the set, in this process. `drpo train` does it too, with all its workers.

    What is encoded already is left as it is, so an interrupted encoding goes on.
    """
    import torch

    from drpo.data.preferences import read_preference_prompts
    from drpo.training.build import build_generator
    from drpo.training.encoding import encode_preferences

    config = _read_settings(preset, context)
    assert config.offline is not None
    read_preference_prompts(config.offline)  # tells all mistakes before the generator is loaded
    device = config.model.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with console.status("loading the generator") as status:
        generator = build_generator(config, device=device, adapter=False)
        cache = encode_preferences(
            config, generator, progress=lambda done: status.update(f"encoding images: {done} preferences done")
        )
    say(f"encoded images for {len(cache.read_index())} prompts are in {cache.folder}")


def _read_settings(preset: str, context: typer.Context) -> Config:
    from drpo.checks import make_paths_absolute

    config = make_paths_absolute(load_config(preset, context.args))
    if config.offline is None:
        raise ConfigError(f"{preset} has no section offline, which names the preferences")
    return config
