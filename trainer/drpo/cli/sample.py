"""`drpo sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from drpo.cli.common import console
from drpo.config import Config, parse_config
from drpo.errors import ConfigError


def sample(
    prompt: Annotated[list[str], typer.Option(help="May be given several times: one row each.")],
    adapter: Annotated[
        Path | None, typer.Option(help="An adapter's folder, or a run's; without one, the base draws.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="The generator, where the adapter lies in no run's folder.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Images of each prompt.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the noise; the same one shows base and adapter side by side.")] = 0,
    out: Annotated[Path, typer.Option(help="The PNG that is written.")] = Path("sample.png"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Draw images of prompts, one grid."""
    import numpy as np
    import torch
    from PIL import Image

    with console.status("drawing"):
        model = load_generator(adapter, generator, device)
        rows = []
        for text in prompt:
            noise_NChw = model.noise(count, torch.Generator().manual_seed(seed))
            with torch.no_grad():
                text_NTD = model.encode_prompts([text]).expand(count, -1, -1)
                rows.append(np.concatenate(list(model.decode(model.sample(noise_NChw, text_NTD))), axis=1))
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(out)
    console.print(f"{len(prompt)} x {count} images in {out}", highlight=False)


def load_generator(adapter: Path | None, generator: str | None, device: str) -> Any:
    """A generator with an adapter; in a run's folder, that run's generator and settings."""
    from drpo.training.build import build_generator

    folder, config = find_adapter(adapter) if adapter is not None else (None, None)
    config = config or parse_config({})
    if generator is not None:
        config.model.generator = generator
    model = build_generator(config, device=device, lora=folder is not None)
    if folder is not None:
        model.load_adapter(folder)
    return model


def find_adapter(given: Path) -> tuple[Path, Config | None]:
    """The folder of an adapter's weights, and the config of the run that it lies in, if it lies in one."""
    from drpo.cluster.launch import find_run, read_config

    for folder in (given, given / "adapter"):
        if any(folder.glob("*.safetensors")):
            run_dir = find_run(folder)
            return folder.resolve(), read_config(run_dir) if run_dir else None
    raise ConfigError(f"--adapter: there is no adapter in {given}; give a folder with a .safetensors file, or a run's")
