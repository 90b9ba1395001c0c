"""`drpo shapes`: draw the embedded world, and train its model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from drpo.errors import ConfigError


class Layout(StrEnum):
    """Which public model's layout a generator has."""

    sd = "sd"
    sdxl = "sdxl"


app = typer.Typer(help="The embedded world of coloured shapes.", no_args_is_help=True)


@app.command()
def pretrain(
    out: Annotated[
        Path,
        typer.Option(
            help="The folder to write: generator/, latent_mae/ or clip/, and work/, from which a later call resumes."
        ),
    ],
    processes: Annotated[int, typer.Option(min=1, help="Processes that train together; use one per core.")] = 2,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of every stage.")] = 0,
    layout: Annotated[
        Layout, typer.Option(help="sd: everything, in the SD-Turbo layout; sdxl: a generator in the SDXL-Turbo layout.")
    ] = Layout.sd,
    honest: Annotated[
        bool, typer.Option("--honest", help="A generator whose errors follow from no rule; in the SD-Turbo layout.")
    ] = False,
    clip: Annotated[
        bool, typer.Option("--clip", help="A CLIP for the embedded generator's pictures, a differentiable reward.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Where a CLIP, an sdxl or an honest generator is trained: cpu or cuda.")
    ] = "cpu",
    tiny: Annotated[bool, typer.Option(help="Run a few steps of every stage, to see that it works.")] = False,
) -> None:
    """Train an embedded model from scratch.

    Without --layout sdxl, --honest and --clip: autoencoder, text encoder, one-step generator, feature map. With one of
    the first two: a generator alone. Its autoencoder, its first text encoder and its feature map are those of the
    embedded model. With --clip: a CLIP alone, which begins with the embedded text encoder.
    """
    from dataclasses import replace

    from drpo.checks.outputs import find_obstacle

    _check_out(find_obstacle(out))
    out = out.resolve()
    if layout is Layout.sdxl and honest:
        raise typer.BadParameter("--honest has the SD-Turbo layout; leave out one of --honest and --layout sdxl")
    if clip and (honest or layout is Layout.sdxl):
        raise typer.BadParameter("--clip trains no generator; leave out --honest and --layout")
    if clip:
        from drpo.shapes.pretrain.clip import ClipRecipe, pretrain_clip

        pretrain_clip(replace(ClipRecipe.tiny() if tiny else ClipRecipe(), seed=seed), out, processes, device)
        typer.echo(f"the CLIP is in {out / 'clip'}")
        return
    if layout is Layout.sdxl:
        from drpo.shapes.pretrain.xl import XLRecipe, pretrain_xl

        pretrain_xl(replace(XLRecipe.tiny() if tiny else XLRecipe(), seed=seed), out, processes, device)
    elif honest:
        from drpo.shapes.pretrain.honest import HonestRecipe, pretrain_honest

        pretrain_honest(replace(HonestRecipe.tiny() if tiny else HonestRecipe(), seed=seed), out, processes, device)
    else:
        from drpo.shapes.pretrain.recipe import Recipe
        from drpo.shapes.pretrain.recipe import pretrain as make

        make(replace(Recipe.tiny() if tiny else Recipe(), seed=seed), out, processes)
        typer.echo(f"the feature map is in {out / 'latent_mae'}")
    typer.echo(f"the generator is in {out / 'generator'}")


@app.command()
def render(
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("shapes.png"),
    columns: Annotated[int, typer.Option(min=1, max=64, help="Pictures per task.")] = 10,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the prompts and scenes.")] = 0,
) -> None:
    """Draw a sheet of example pictures, one row per task, and print their prompts."""
    import numpy as np
    from PIL import Image

    from drpo.checks.outputs import find_picture_obstacle
    from drpo.shapes.prompts import TASKS, prompts
    from drpo.shapes.world import render as draw
    from drpo.shapes.world import sample_scene

    _check_out(find_picture_obstacle(out))
    rng = np.random.default_rng(seed)
    rows = []
    for task in TASKS:
        records = prompts("train", task)
        chosen = [records[i] for i in rng.integers(len(records), size=columns)]
        rows.append(np.concatenate([draw(sample_scene(record.metadata, rng), rng) for record in chosen], axis=1))
        typer.echo(f"{task}: " + "; ".join(record.prompt for record in chosen))
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(out)
    typer.echo(f"wrote {out}")


@app.command()
def preferences(
    out: Annotated[Path, typer.Option(help="The folder to write: images/ and preferences.jsonl.")],
    prompts_per_task: Annotated[int, typer.Option(min=1, help="Prompts of each of the six tasks.")] = 200,
    pairs: Annotated[int, typer.Option(min=1, help="Chosen pictures of each prompt, and also rejected ones.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts and scenes.")] = 0,
) -> None:
    """Draw a preference set for offline training: right pictures, and careless ones with one fact wrong."""
    from drpo.checks.outputs import find_obstacle
    from drpo.shapes.preferences import write_preferences

    _check_out(find_obstacle(out))
    table = write_preferences(out, prompts_per_task=prompts_per_task, pairs=pairs, seed=seed)
    typer.echo(f"wrote {table}; train from it with: drpo train --preset shapes-offline --offline.path {table}")


def _check_out(obstacle: str) -> None:
    """Raises an error about --out if there is an obstacle."""
    if obstacle:
        raise ConfigError(f"--out: {obstacle}")
