"""`drpo sample`: generate images for prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drpo.cli.common import console
from drpo.config import Config, parse_config
from drpo.errors import ConfigError

if TYPE_CHECKING:
    from drpo.generators import OneStepGenerator


def sample(
    prompt: Annotated[list[str], typer.Option(help="The prompt. Repeat the option for more prompts, one row each.")],
    adapter: Annotated[
        Path | None, typer.Option(help="The folder of an adapter or of a run. Without it, the base is used.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="The generator to use if the adapter is not in a run's folder.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the noise; use the same seed to compare base and adapter.")] = 0,
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("sample.png"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Generate images for prompts, and write them into one grid."""
    import numpy as np
    import torch
    from PIL import Image

    with console.status("generating"):
        model = load_with_adapter(adapter, generator, device)
        rows = []
        for text in prompt:
            noise_NChw = model.noise(count, torch.Generator().manual_seed(seed))
            with torch.no_grad():
                latents_NChw = model.sample(noise_NChw, model.encode_prompts([text]))
                rows.append(np.concatenate(list(model.decode(latents_NChw)), axis=1))
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(out)
    console.print(f"{len(prompt)} x {count} images in {out}", highlight=False)


def load_with_adapter(adapter: Path | None, generator: str | None, device: str) -> OneStepGenerator:
    """Loads a generator with an adapter. If the adapter is in a run's folder, the run's settings name the generator."""
    from drpo.training.build import build_generator

    folder, config = find_adapter(adapter) if adapter is not None else (None, None)
    config = config or parse_config({})
    if generator is not None:
        config.model.generator = generator
    model = build_generator(config, device=device, lora=folder is not None)
    if folder is not None:
        model.adapter.load(folder)
    return model


def find_adapter(path: Path) -> tuple[Path, Config | None]:
    """The folder of the adapter's weights in `path`, and the config of its run; None if it is not in a run's folder."""
    from drpo.training.run_folder import ADAPTER, find_run, read_config

    for folder in (path, path / ADAPTER):
        if any(folder.glob("*.safetensors")):
            run_dir = find_run(folder)
            return folder.resolve(), read_config(run_dir) if run_dir else None
    raise ConfigError(
        f"--adapter: there is no adapter in {path}; give a folder with a .safetensors file, or the folder of a run"
    )
