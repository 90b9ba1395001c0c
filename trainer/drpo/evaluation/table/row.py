"""A row of a table: a model, and how it generates. Written NAME=WHAT,key=value,... on the command line.

base=base                                             the generator of the settings
DrPO=runs/mine                                        an adapter: a run, a checkpoint, a file or a folder
SD-Turbo=stabilityai/sd-turbo                         another one-step generator
SD1.5=runwayml/stable-diffusion-v1-5,steps=50,guidance=7.5     any pipeline of diffusers, with many steps
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from drpo.errors import ConfigError
from drpo.evaluation.table.named import read_named
from drpo_rewards.api.suggestions import did_you_mean

BASE = "base"
_OF_PIPELINES = ("guidance", "scheduler", "size", "lora", "unet")
_SAMPLE_BYTES = 1 << 16


def check_name(name: str) -> str:
    """Checks that a name fits into a line of a table.

    Raises:
        ValueError: it has a line break or another character that cannot be printed.
    """
    if not name.isprintable():
        raise ValueError("has a line break, or another character that cannot be printed")
    return name


class Row(BaseModel):
    """A model, and how it generates.

    Attributes:
        name: its name in tables.
        what: "base", an adapter, a generator, or a pipeline.
        steps: steps of a pipeline of diffusers; None: a one-step generator.
        guidance, scheduler, size, lora, unet: of such a pipeline, see `drpo.generators.multi_step`.
        generator: the generator that an adapter is for; None: that of its run, or of the settings.
        variant, dtype: of the weights; None: as in the settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(check_name)]
    what: str = Field(min_length=1)
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0)
    scheduler: Literal["ddim", "dpmpp_2m", "euler", "lcm"] | None = None
    size: int | None = Field(default=None, ge=64, le=4096, multiple_of=8)
    lora: str | None = None
    unet: str | None = None
    generator: str | None = None
    variant: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Row:
        given = [key for key in _OF_PIPELINES if getattr(self, key) is not None]
        if given and self.steps is None:
            raise ValueError(f"{given[0]} is of a pipeline with many steps: give steps too")
        if self.generator is not None and (self.steps is not None or self.what == BASE):
            raise ValueError("generator is for an adapter")
        return self

    @property
    def folder(self) -> str:
        """The name of its folder: readable, and another one for every name."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")[:60]
        return slug if slug == self.name else f"{slug or 'row'}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


def parse_row(text: str) -> Row:
    """Reads NAME=WHAT,key=value,...

    Raises:
        ConfigError: it is written differently, or has an unknown or wrong value.
    """
    name, equals, rest = text.partition("=")
    what, *options = re.split(r",(?=[a-z]+=)", rest)
    if not (name.strip() and equals and what):
        raise ConfigError(f"--row: {text!r} is not NAME=WHAT,key=value; such as DrPO=runs/mine")
    values: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in Row.model_fields or key in ("name", "what"):
            known = [key for key in Row.model_fields if key not in ("name", "what")]
            raise ConfigError(
                f"--row {name}: there is no {key}{did_you_mean(key, known)}; choose from {', '.join(known)}"
            )
        values[key] = value
    try:
        return Row(name=name.strip(), what=what, **values)
    except ValidationError as error:
        problems = [
            f"--row {name}: {'.'.join(map(str, one['loc']))}{': ' if one['loc'] else ''}"
            f"{one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from None


def parse_rows(texts: Sequence[str]) -> list[Row]:
    """Reads several rows, see `read_named`."""
    return read_named("--row", texts, parse_row)


def fingerprint(path: Path) -> str:
    """A short hash of a file, or of all files in a folder, by their names, sizes, beginnings and ends."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path) if path.is_dir() else file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            digest.update(content.read(_SAMPLE_BYTES))
            content.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(content.read())
    return digest.hexdigest()[:16]
