"""What is about to start, and what several checks read of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from drpo.config import Config
from drpo.errors import DrpoError
from drpo.shapes.embedded import generator_source

if TYPE_CHECKING:
    from drpo.data.prompts import PromptRecord
    from drpo.generators.base import Layout

Verb = Literal["train", "evaluate", "table", "sample"]


@dataclass(frozen=True)
class Plan:
    """What is about to start.

    Attributes:
        config: its settings, with absolute paths.
        verb: "train" (with the evaluation at its end, if the settings ask for it), "evaluate", "table" (of
            several models, on prompts that are checked elsewhere) or "sample".
        run_dir: the folder of the run that goes on; None: a new run.
        adapter: the file of the adapter that will be loaded; None: there is none.
        out: the file that will be written besides the run's; None: there is none.
        texts: the prompts of "sample".
        measures_features: whether a "table" measures pictures in the feature map.
        rewards: whether the rewards of the settings are asked, if anything needs them.
        asks: REWARD or REWARD/METRIC of those that a "table" or a judgement asks by name.

    Example:
        Plan(load_config("shapes"), "evaluate", out=Path("numbers.json"))
    """

    config: Config
    verb: Verb = "train"
    run_dir: Path | None = None
    adapter: Path | None = None
    out: Path | None = None
    texts: tuple[str, ...] = ()
    measures_features: bool = False
    rewards: bool = True
    asks: tuple[str, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether an adapter is trained."""
        return self.verb == "train"

    @property
    def evaluates(self) -> bool:
        """Whether an adapter is compared with its base."""
        return self.verb == "evaluate" or (self.trains and self.config.evaluation.enabled)

    @property
    def asks_rewards(self) -> bool:
        """Whether a ranking service is needed."""
        from drpo.training.build import asks_rewards

        if not self.rewards:
            return False
        if self.evaluates or not self.trains:
            return self.evaluates or self.verb == "table"
        try:
            return asks_rewards(self.config)
        except (DrpoError, ValidationError):  # the check of the settings says so
            return True

    @property
    def starts_ray(self) -> bool:
        """Whether a Ray is started on this machine."""
        return self.verb != "sample" and self.config.run.ray_address is None

    @cached_property
    def training_prompts(self) -> list[PromptRecord] | DrpoError:
        """The training prompts, or why they cannot be read; none if preferences on the hub will say them."""
        from drpo.data.training import load_training_prompts

        try:
            return load_training_prompts(self.config) or []
        except DrpoError as error:
            return error

    @cached_property
    def evaluation_prompts(self) -> list[PromptRecord] | DrpoError:
        """The evaluation prompts, or why they cannot be read."""
        from drpo.data.prompts import load_prompts

        try:
            return load_prompts(self.config.evaluation_prompts(), "evaluation")
        except DrpoError as error:
            return error

    @cached_property
    def layout(self) -> Layout | None:
        """The sizes of the generator that a feature map must fit; None if they cannot be read on this machine."""
        from drpo.generators.configs import read_layout

        if self.generator_folder is None:
            return None
        try:
            return read_layout(str(self.generator_folder), self.local_vae)
        except DrpoError:  # `models` says what is wrong
            return None

    @property
    def local_vae(self) -> str | None:
        """The folder in `model.vae`; None if there is none, or if it may yet be downloaded."""
        vae = self.config.model.vae
        return vae if vae and os.path.isdir(vae) else None

    @cached_property
    def generator_folder(self) -> Path | None:
        """The folder with the generator's files; None if it is not on this machine."""
        from drpo.checks.hub import find_cached

        try:
            source = generator_source(self.config.model.generator)
        except DrpoError:
            return None
        return Path(source) if os.path.isdir(source) else find_cached(source)
