"""What generates a row's pictures: a one-step generator, with or without an adapter, or a pipeline of many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from drpo.config import Config
from drpo.errors import ConfigError, DrpoError, ModelLoadError
from drpo.evaluation.evaluate import generate
from drpo.evaluation.plan import PlannedImage
from drpo.evaluation.table.row import BASE, Row, fingerprint
from drpo.generators import check_adapter, check_generator
from drpo.generators.configs import MODEL_INDEX
from drpo.generators.loading import check_source
from drpo.generators.multi_step import StockPipeline
from drpo.shapes.embedded import generator_source, is_embedded
from drpo.training.build import build_generator
from drpo.training.run_folder import find_run, locate_adapter, read_config

Painter = Callable[[Sequence[PlannedImage]], NDArray[np.uint8]]
"""Makes the images (N, H, W, 3) of planned ones."""


class Model(NamedTuple):
    """What a row means on this machine.

    Attributes:
        row: the row.
        config: the settings whose section `model` names its generator.
        adapter: the file or folder of its adapter; None: it has none.
    """

    row: Row
    config: Config
    adapter: Path | None

    def identify(self) -> dict[str, Any]:
        """Everything that decides which pictures it makes, but for the prompts: for the file of a finished row."""
        settings = self.config.model.model_dump(mode="json", exclude={"device", "gradient_checkpointing"})
        of_pipeline = (
            (generator_source(self.row.what), self.row.lora, self.row.unet) if self.row.steps is not None else ()
        )
        sources = (generator_source(settings["generator"]), settings["unet"], settings["vae"], *of_pipeline)
        local = [Path(source) for source in sources if source is not None]
        return {
            "row": self.row.model_dump(mode="json", exclude={"name", "what"}),
            "model": settings,
            "adapter": fingerprint(self.adapter) if self.adapter is not None else None,
            "pipeline": self.row.what if self.row.steps is not None else None,
            "files": [fingerprint(path) for path in local if path.exists()],
        }


def find_model(row: Row, config: Config) -> Model:
    """Finds out what a row is.

    Args:
        row: the row.
        config: the settings. Their generator is that of rows that name no other.

    Raises:
        ConfigError: it is nothing that generates.
    """
    settings: dict[str, Any] = {"variant": row.variant, "dtype": row.dtype}
    path = Path(row.what).expanduser()
    if row.what == BASE or row.steps is not None:
        return Model(row, _change(config, settings), None)
    if is_embedded(row.what) or not path.exists() or (path / MODEL_INDEX).is_file():
        source = row.what if is_embedded(row.what) or not path.exists() else str(path.resolve())
        return Model(row, _change(config, settings | {"generator": source}, fresh=True), None)
    try:
        adapter = locate_adapter(path)
    except ConfigError as error:
        raise ConfigError(f"--row {row.name}: {error}, or that of a diffusers pipeline") from error
    run_dir = find_run(adapter)
    if row.generator is not None:
        config = _change(config, settings | {"generator": row.generator}, fresh=True)
    else:
        config = _change(read_config(run_dir) if run_dir is not None else config, settings)
    return Model(row, config, adapter)


def _change(config: Config, settings: dict[str, Any], *, fresh: bool = False) -> Config:
    """A config with other settings of its model; `fresh`: without the VAE, U-Net and variant of another generator."""
    fresh_settings = {"vae": None, "unet": None, "variant": None} if fresh else {}
    given = {key: value for key, value in settings.items() if value is not None}
    return config.model_copy(update={"model": config.model.model_copy(update=fresh_settings | given)})


def check_model(model: Model) -> None:
    """Checks that an adapter fits its generator, and that a local generator is whole, without loading weights.

    Raises:
        ConfigError: something is wrong; the message names the row.
    """
    settings = model.config.model
    source = generator_source(settings.generator) if model.row.steps is None else generator_source(model.row.what)
    if not Path(source).is_dir():
        return  # the hub's library checks what it downloads
    try:
        if model.row.steps is not None:
            check_source(source, settings.variant)
        else:
            check_generator(source, variant=settings.variant, vae=settings.vae)
        if model.adapter is not None:
            check_adapter(model.adapter, source)
    except DrpoError as error:
        raise ConfigError(f"--row {model.row.name}: {error}") from error


def load_painter(model: Model, device: str) -> Painter:
    """Loads what generates a row's pictures.

    Raises:
        ModelLoadError, UnsupportedModelError: the model cannot be loaded; the message names the row.
    """
    row, settings = model.row, model.config.model
    try:
        if row.steps is not None:
            pipeline = StockPipeline.load(
                generator_source(row.what),
                steps=row.steps,
                guidance=row.guidance,
                size=row.size,
                scheduler=row.scheduler,
                lora=row.lora,
                unet=row.unet,
                variant=row.variant,
                device=device,
                dtype=getattr(torch, settings.dtype),
            )
            return lambda planned: pipeline.paint([one.record.prompt for one in planned], [one.seed for one in planned])
        generator = build_generator(model.config, device=device, adapter=False)
        if model.adapter is not None:
            generator.load_adapter(model.adapter)
        return lambda planned: generate(generator, planned)
    except DrpoError as error:
        known = row.what == BASE or Path(row.what).exists()
        hint = "" if known else f" ({row.what} is no file or folder here, so it was looked for on the hub)"
        raise ModelLoadError(f"--row {row.name}: {error}{hint}") from error
