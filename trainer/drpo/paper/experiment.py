"""What the file of an experiment says."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from drpo.errors import ConfigError
from drpo.evaluation.table.row import check_name, parse_rows
from drpo_rewards import errors
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.settings.files import Settings, parse_settings, read_text

World = Literal["shapes", "real"]
RunName = Annotated[str, Field(min_length=1, max_length=70), AfterValidator(check_name)]
"""Shorter than the name of a row, because the row of a run also says its seed and step."""
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


WARM_UP_STEPS = 1
"""Steps at the start of a run that its times leave out."""


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


class JudgingSpec(_Part):
    """Which rows a judge compares, pair by pair, as `drpo judge` does.

    Attributes:
        judge: the name of a reward of the service; a pointwise one compares by its scores.
        first: the trained row that is judged against each other row, those of its own seed.
        pairs: at most so many of each two rows and each seed, over all sets of prompts.
    """

    judge: str
    first: str
    pairs: int = Field(default=500, ge=1)


class WorldSpec(_Part):
    """An experiment in one world.

    Attributes:
        shares: the name of an experiment whose rows and runs these are: what is not said here is as there, and its runs
            are used or made. They lie in the folder of that experiment, beside the folder of this one; and so do the
            pictures and scores, unless preset, prompts, images or settings differ, rows are added, or this folder has
            pictures of its own already.
        needs: what it needs, in words.
        preset: the preset with the base, the rewards' service and the prompts of the evaluation.
        settings: of the evaluation that differ from the preset, by dotted key.
        rows: the rows that are not trained, as `drpo eval --row` takes them. All others are compared with the first.
        runs: the trained rows, by name.
        prompts: the sets of prompts, as `drpo eval --prompts` takes them; none: those of the preset.
        images: pictures of each prompt.
        rewards: the columns, as `drpo eval --reward` takes them.
        diversity: whether diversity is a column too.
        steps: optimizer steps of each run, unless the budget allows fewer.
        step_seconds: what a step takes about, for the plan.
        at: the shares of the steps at which a curve has points, for the kind curve.
        judging: what a judge compares, for the kind judged.
    """

    shares: str | None = None
    needs: str
    preset: str
    settings: dict[str, Any] = Field(default_factory=dict)
    rows: tuple[str, ...] = Field(default=("base=base",), min_length=1)
    runs: dict[RunName, RunSpec] = Field(min_length=1)
    prompts: tuple[str, ...] = ()
    images: int = Field(default=2, ge=1)
    rewards: tuple[str, ...] = ()
    diversity: bool = True
    steps: int = Field(ge=1)
    step_seconds: float = Field(gt=0, allow_inf_nan=False)
    at: tuple[Share, ...] = Field(default=(1.0,), min_length=1)
    judging: JudgingSpec | None = None

    @model_validator(mode="after")
    def _check_names(self) -> WorldSpec:
        seen = set[str]()
        for name in (*(row.name for row in parse_rows(self.rows)), *self.runs):
            if name.lower() in seen:
                raise ValueError(f"two rows are named {name!r}; give each its own name")
            seen.add(name.lower())
        return self

    @model_validator(mode="after")
    def _check_judged_row(self) -> WorldSpec:
        if self.judging is not None and self.judging.first not in self.runs:
            raise ValueError(
                f"judging.first: there is no run {self.judging.first!r}; choose from {', '.join(self.runs)}"
            )
        return self


class PaperNumbers(_Part):
    """The paper's own numbers.

    Attributes:
        columns: their titles.
        rows: the numbers of each row; null where there is none.
        note: what to know when comparing.
    """

    columns: tuple[str, ...] = ()
    rows: dict[str, tuple[int | float | str | None, ...]] = Field(default_factory=dict)
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
        kind: table: of the finished runs; curve: of their checkpoints; profile: of the time of their steps; judged: a
            table, and what a judge says of the pictures.
        paper: the paper's own numbers.
        worlds: where it can be run.
    """

    name: str
    source: str
    title: str = Field(min_length=1)
    kind: Literal["table", "curve", "profile", "judged"] = "table"
    paper: PaperNumbers
    worlds: dict[World, WorldSpec] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_kind(self) -> Experiment:
        for world, spec in self.worlds.items():
            if (spec.judging is not None) != (self.kind == "judged"):
                raise ValueError(f"worlds.{world}.judging: give it for the kind judged, and for no other")
            if len(spec.at) > 1 and self.kind != "curve":
                raise ValueError(f"worlds.{world}.at: only the kind curve has points")
            if spec.steps < self.fewest_steps:
                raise ValueError(f"worlds.{world}.steps: the kind {self.kind} needs at least {self.fewest_steps}")
        return self

    @property
    def fewest_steps(self) -> int:
        """The least number of steps that can be shown: the times of steps leave out the first ones."""
        return 1 + WARM_UP_STEPS if self.kind == "profile" else 1


def experiment_names() -> list[str]:
    """The experiments that the package contains."""
    files = resources.files("drpo.paper").joinpath("experiments").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_experiment(name: str) -> Experiment:
    """Reads an experiment of the package, or a YAML file.

    Raises:
        ConfigError: there is no such experiment, or the file is wrong.
    """
    source, text = name, _read_text(name)
    if name not in experiment_names():
        name = Path(name).stem
    settings = _parse(text, source)
    try:
        values: dict[str, Any] = {"name": name, "source": source, **settings.sections}
        for world, spec in _worlds(values).items():
            if isinstance(spec, dict) and "shares" in spec:
                values["worlds"] = values["worlds"] | {world: _shared(values, world, spec)}
        return Experiment.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{settings.locate(one['loc'])}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from None


def _read_text(name: str) -> str:
    """The text of an experiment's file."""
    if name.endswith((".yaml", ".yml")):
        try:
            return read_text(Path(name))
        except errors.ConfigError as error:
            raise ConfigError(str(error)) from None
    known = experiment_names()
    if name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f"there is no experiment {name!r}{hint}; choose from {', '.join(known)}, or give a YAML file")
    return resources.files("drpo.paper").joinpath("experiments", f"{name}.yaml").read_text(encoding="utf-8")


def _parse(text: str, source: str) -> Settings:
    """The settings in a file's text."""
    try:
        return parse_settings(text, source, Experiment)
    except errors.ConfigError as error:
        raise ConfigError(str(error)) from None


def _worlds(values: Mapping[str, Any]) -> dict[str, Any]:
    """The worlds in the values of a file, if they are a mapping."""
    worlds = values.get("worlds")
    return worlds if isinstance(worlds, dict) else {}


def _shared(values: Mapping[str, Any], world: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The values of a world, with what it takes from the experiment that it shares its runs with."""
    name, owner = values["name"], str(spec["shares"])
    if owner.endswith((".yaml", ".yml")):  # a file, as seen from this one
        owner = str(Path(values["source"]).parent / owner)
    shared = _parse(_read_text(owner), owner).sections
    worlds = _worlds(shared)
    if not isinstance(worlds.get(world), dict) or "shares" in worlds[world]:
        raise ConfigError(f"{name}: worlds.{world}.shares: {owner} has no runs of its own in {world}")
    if own := {"runs", "steps", "at"} & spec.keys():
        raise ConfigError(f"{name}: worlds.{world}: {' and '.join(sorted(own))} are those of {owner}; leave them out")
    taken = {**worlds[world], **spec, "shares": owner}
    if values.get("kind") != "curve":
        taken.pop("at", None)
    elif shared.get("kind") != "curve":
        raise ConfigError(f"{name}: worlds.{world}.shares: {owner} is no curve, so its runs keep no points of one")
    return taken
