"""What the file of an experiment says."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drpo.errors import ConfigError
from drpo_rewards import errors
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.settings.files import parse_settings, read_text

World = Literal["shapes", "real"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSpec(_Part):
    """A trained row: a preset, and the settings that differ from it.

    Attributes:
        preset: the name of a preset.
        settings: by dotted key; a section may be given whole, such as objective.
    """

    preset: str
    settings: dict[str, Any] = Field(default_factory=dict)


class WorldSpec(_Part):
    """An experiment in one world.

    Attributes:
        needs: what it needs, in words.
        preset: the preset with the base, the rewards' service and the prompts of the evaluation.
        rows: more rows that are not trained, as `drpo eval --row` takes them.
        runs: the trained rows, by name.
        prompts: the sets of prompts, as `drpo eval --prompts` takes them; none: those of the preset.
        images: pictures of each prompt.
        rewards: the columns, as `drpo eval --reward` takes them.
        diversity: whether diversity is a column too.
        steps: optimizer steps of each run, unless the budget allows fewer.
        step_seconds: what a step takes about, for the plan.
        at: the shares of the steps at which a curve has points.
    """

    needs: str
    preset: str
    rows: tuple[str, ...] = ("base=base",)
    runs: dict[str, RunSpec]
    prompts: tuple[str, ...] = ()
    images: int = Field(default=2, ge=1)
    rewards: tuple[str, ...] = ()
    diversity: bool = True
    steps: int = Field(ge=1)
    step_seconds: float = Field(gt=0)
    at: tuple[float, ...] = (1.0,)


class PaperNumbers(_Part):
    """The paper's own numbers.

    Attributes:
        columns: their titles.
        rows: the numbers of each row; null where there is none.
        note: what to know when comparing.
    """

    columns: tuple[str, ...] = ()
    rows: dict[str, tuple[float | str | None, ...]] = Field(default_factory=dict)
    note: str = ""

    @model_validator(mode="after")
    def _check_lengths(self) -> PaperNumbers:
        for row, numbers in self.rows.items():
            if len(numbers) != len(self.columns):
                raise ValueError(f"the row {row} has {len(numbers)} numbers for {len(self.columns)} columns")
        return self


class Experiment(_Part):
    """One table or figure of the paper.

    Attributes:
        name: the name of its file.
        source: what `drpo paper` takes: its name, or the path of its file.
        title: what it is in the paper.
        kind: table: of the finished runs; curve: of their checkpoints; profile: of the time of their steps.
        paper: the paper's own numbers.
        worlds: where it can be run.
    """

    name: str
    source: str
    title: str
    kind: Literal["table", "curve", "profile"] = "table"
    paper: PaperNumbers
    worlds: dict[World, WorldSpec]


def experiment_names() -> list[str]:
    """The experiments that the package contains."""
    files = resources.files("drpo.paper").joinpath("experiments").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_experiment(name: str) -> Experiment:
    """Reads an experiment of the package, or a YAML file.

    Raises:
        ConfigError: there is no such experiment, or the file is wrong.
    """
    source = name
    if name.endswith((".yaml", ".yml")):
        try:
            text, name = read_text(Path(name)), Path(name).stem
        except errors.ConfigError as error:
            raise ConfigError(str(error)) from None
    elif name in experiment_names():
        text = resources.files("drpo.paper").joinpath("experiments", f"{name}.yaml").read_text(encoding="utf-8")
    else:
        known = experiment_names()
        hint = did_you_mean(name, known)
        raise ConfigError(f"there is no experiment {name!r}{hint}; choose from {', '.join(known)}, or give a YAML file")
    try:
        settings = parse_settings(text, source, Experiment)
    except errors.ConfigError as error:
        raise ConfigError(str(error)) from None
    try:
        return Experiment.model_validate({"name": name, "source": source, **settings.sections})
    except ValidationError as error:
        problems = [
            f"{settings.locate(one['loc'])}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from None
