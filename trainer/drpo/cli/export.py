"""`drpo export`: an adapter for other programs, or a whole pipeline with the adapter in its weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from drpo.cli.common import check_before_start, console, say
from drpo.cli.sample import choose_config, load_with_adapter
from drpo.config import Config, Problem
from drpo.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from drpo.generators import OneStepGenerator

ExportFormat = Literal["diffusers", "peft", "kohya", "merged"]
"""As in `drpo.generators.export`, which imports torch."""

PROMPT = "a photo of a red circle"
MOST_DIFFERENCE = 3
"""Levels of 255 by which a pixel may differ after an export: weights are rounded once more."""


def export(
    adapter: Annotated[
        Path,
        typer.Argument(
            help="A run by its folder or name, or a LoRA adapter or a whole U-Net: its folder or file.",
            metavar="RUN_OR_ADAPTER",
        ),
    ],
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="diffusers, peft, kohya (ComfyUI, A1111), or merged: a whole pipeline."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write, or with kohya the file; default: export/FORMAT beside the adapter's folder."
        ),
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="The generator of the adapter; default: that of its run, else the embedded one.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:NUMBER, or auto: a GPU if there is one.")] = "cpu",
) -> None:
    """Write an adapter in the form of another program, load it back, and compare the pictures."""
    problems, file, config = [], None, Config()
    try:
        file, config = choose_config(adapter, generator)
    except ConfigError as error:
        problems.append(Problem("RUN_OR_ADAPTER", str(error)))
    out = _choose_out(out, form, file or adapter)
    if out.exists():
        problems.append(Problem("--out", f"--out: {out} exists; remove it, or give another path"))
    config = check_before_start(
        config.model_dump(mode="json"),
        typed={"model.device": device},
        problems=problems,
        verb="sample",
        adapter=file,
        texts=(PROMPT,),
    )
    assert file is not None  # otherwise the check has raised an error
    with console.status("exporting"):
        model = load_with_adapter(config, file)
        before = _draw(model)
        try:
            _write(model, form, out, config)
            difference = _compare(before, form, out, config)
        except BaseException:
            _remove(out)
            raise
    say(f"written to {out} and loaded back: no pixel of a picture differs by more than {difference} of 255")
    if form == "kohya":
        say("copy it into ComfyUI's models/loras, or A1111's models/Lora")


def _choose_out(out: Path | None, form: ExportFormat, adapter: Path) -> Path:
    """Where to write: with kohya a file, else a folder."""
    from drpo.training.run_folder import UNET

    if out is None:
        folder = adapter if adapter.is_dir() else adapter.parent
        folder = folder.parent if folder.name == UNET else folder  # which is a part of the adapter
        out = folder.parent / "export" / form
        return out.with_suffix(".safetensors") if form == "kohya" else out
    return out / "kohya.safetensors" if form == "kohya" and out.suffix != ".safetensors" else out


def _write(model: Any, form: ExportFormat, out: Path, config: Config) -> None:
    import torch

    from drpo.generators.export import export_adapter, export_merged
    from drpo.shapes.embedded import generator_source
    from drpo.training.files import storing

    settings = config.model
    with storing(out):
        if form == "merged":
            export_merged(
                model,
                out,
                source=generator_source(settings.generator),
                dtype=getattr(torch, settings.dtype),
                variant=settings.variant,
                vae=settings.vae,
            )
        else:
            export_adapter(model, form, out)


def _draw(model: OneStepGenerator) -> Any:
    import torch

    with torch.no_grad():
        noise_NChw = model.noise(1, torch.Generator().manual_seed(0))
        return model.decode(model.sample(noise_NChw, model.encode_prompts([PROMPT])))[0].astype(int)


def _compare(before: Any, form: ExportFormat, out: Path, config: Config) -> int:
    """Loads what was written, and returns the largest difference of its picture.

    Raises:
        EvaluationError: the pictures are not the same.
    """
    import numpy as np

    if form == "merged":
        config = config.model_copy(deep=True)
        config.model.generator, config.model.vae, config.model.unet, config.model.variant = str(out), None, None, None
        after = _draw(load_with_adapter(config, None))
    else:
        after = _draw(load_with_adapter(config, out))
    difference = int(np.abs(after - before).max())
    if difference > MOST_DIFFERENCE:
        raise EvaluationError(
            f"what was written as {form} draws another picture: pixels differ by up to {difference} of 255. "
            f"Please report this; {out} was removed"
        )
    return difference


def _remove(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
