"""`drpo sample`: generate images for prompts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drpo.cli.common import DryRun, check_before_start, console, say
from drpo.config import MOST_INTEGER, Config, Problem
from drpo.errors import ConfigError

if TYPE_CHECKING:
    from drpo.generators import OneStepGenerator


def sample(
    prompt: Annotated[list[str], typer.Option(help="The prompt. Repeat the option for more prompts, one row each.")],
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="A LoRA adapter or whole U-Net: its file or folder, or a run by folder or name. Without it, the base."
        ),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="The generator to use; default: that of the adapter's run, else the embedded one."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=256, help="Images per prompt.")] = 4,
    seed: Annotated[
        int,
        typer.Option(min=0, max=MOST_INTEGER, help="Seed of the noise; the same seed compares base and adapter."),
    ] = 0,
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("sample.png"),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:NUMBER, or auto: a GPU if there is one.")] = "cpu",
    dry_run: DryRun = False,
) -> None:
    """Generate images for prompts, and write them into one grid."""
    problems, file, config = [], None, Config()
    try:
        file, config = choose_config(adapter, generator)
    except ConfigError as error:
        problems.append(Problem("--adapter", f"--adapter: {error}"))
    config = check_before_start(
        config.model_dump(mode="json"),
        typed={"model.device": device},
        problems=problems,
        dry_run=dry_run,
        verb="sample",
        adapter=file,
        out=out,
        texts=tuple(prompt),
    )

    import numpy as np
    import torch
    from PIL import Image

    from drpo.training.files import write_bytes

    with console.status("generating"):
        model = load_with_adapter(config, file)
        rows = []
        for text in prompt:
            noise_NChw = model.noise(count, torch.Generator().manual_seed(seed))
            with torch.no_grad():
                latents_NChw = model.sample(noise_NChw, model.encode_prompts([text]))
                rows.append(np.concatenate(list(model.decode(latents_NChw)), axis=1))
        out.parent.mkdir(parents=True, exist_ok=True)
        picture = io.BytesIO()
        Image.fromarray(np.concatenate(rows)).save(picture, Image.registered_extensions()[out.suffix.lower()])
        write_bytes(out, picture.getvalue())
    say(f"{len(prompt)} x {count} images in {out}")


def choose_config(adapter: Path | None, generator: str | None) -> tuple[Path | None, Config]:
    """The file of an adapter, and the settings that name its generator: those of its run, unless `generator` does.

    Raises:
        ConfigError: there is no adapter, or the settings of its run cannot be read.
    """
    from drpo.training.run_folder import find_run, locate_adapter, read_config

    file = locate_adapter(adapter) if adapter is not None else None
    run_dir = find_run(file) if file is not None and generator is None else None
    config = read_config(run_dir) if run_dir is not None else Config()
    if generator is not None:
        config.model.generator = generator
    return file, config


def load_with_adapter(config: Config, file: Path | None) -> OneStepGenerator:
    """Loads the generator of a config, with the adapter in a file; None: without one."""
    import torch

    from drpo.training.build import build_generator

    device = config.model.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_generator(config, device=device, adapter=False)
    if file is not None:
        model.load_adapter(file)
    return model
