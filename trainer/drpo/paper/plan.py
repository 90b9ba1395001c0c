"""The runs of an experiment: which, how long each, and what all of it takes. Its folder keeps the first plan."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drpo.config import Config, override, read_preset, salvage_config, set_value
from drpo.errors import ConfigError
from drpo.evaluation.table.row import Row
from drpo.paper.begun import look_around
from drpo.paper.budget import in_words
from drpo.paper.experiment import Experiment, World, WorldSpec, load_experiment
from drpo.training.files import storing, write_text
from drpo.training.metrics import read_metrics
from drpo.training.run_folder import ADAPTER, CHECKPOINTS, METRICS_FILE

PLAN_FILE = "plan.json"
TABLE_FOLDER = "table"
_OWN = {
    "run.seed": "--seeds says how many seeds there are",
    "run.name": "it is that of the row and the seed",
    "run.folder": "--out is the folder of everything",
    "training.steps": "the steps are those of the experiment's file, or fewer by --budget",
    "training.max_seconds": "all runs have the same number of steps; --budget makes them fewer",
    "training.checkpoint_every": "it follows from the steps and the points of a curve",
    "training.keep_checkpoints": "it follows from the points of a curve",
    "evaluation.enabled": "all runs are evaluated together at the end",
    "evaluation.images_per_prompt": "`images` in the experiment's file says how many",
}
"""The settings that the plan itself decides on, and what a user does instead."""
MOST_STEPS_LOST = 50
"""The steps between two checkpoints of a curve, at most: those that a killed run makes again."""
PICTURE_SECONDS = 0.05
"""What a picture of the world of shapes takes about: generated, kept, scored and measured."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of an experiment.

    Attributes:
        row: the name of its row.
        seed: of the run.
        config: its settings.
        run_dir: its folder.
    """

    row: str
    seed: int
    config: Config
    run_dir: Path

    @property
    def steps_done(self) -> int:
        """The steps that it has made."""
        return max((line["step"] for line in read_metrics(self.run_dir / METRICS_FILE)), default=0)

    @property
    def finished(self) -> bool:
        """Whether all its steps are done, and its adapter is there."""
        adapter = self.run_dir / CHECKPOINTS / f"step-{self.config.training.steps:06d}"
        return (self.run_dir / ADAPTER).is_dir() and adapter.is_dir() and self.steps_done >= self.config.training.steps

    def adapter_at(self, step: int) -> Path:
        """The adapter of a step that has a checkpoint."""
        return self.run_dir / CHECKPOINTS / f"step-{step:06d}"


@dataclass(frozen=True)
class PaperPlan:
    """What will be done.

    Attributes:
        experiment: the experiment.
        world: its name.
        seeds: the number of seeds, 0, 1, ...
        steps: optimizer steps of each run.
        out: the folder of everything.
        overrides: "dotted.key=value", for all runs and for the evaluation.
        owner: the plan whose runs these are, if the experiment shares those of another one.
    """

    experiment: Experiment
    world: World
    seeds: int
    steps: int
    out: Path
    overrides: tuple[str, ...] = ()
    owner: PaperPlan | None = None

    @property
    def spec(self) -> WorldSpec:
        """The experiment in this world."""
        return self.experiment.worlds[self.world]

    @property
    def points(self) -> list[int]:
        """The steps at which adapters are evaluated: of a curve those of its checkpoints, else the last one."""
        if not self.is_curve:
            return [self.steps]
        every = self.checkpoint_every
        nearest = {share: max(1, round(share * self.steps / every)) * every for share in self.spec.at}
        return sorted({min(self.steps, step) if share < 1 else self.steps for share, step in nearest.items()})

    @property
    def is_curve(self) -> bool:
        """Whether the checkpoints on the way are evaluated, each as a row of its own."""
        return self.experiment.kind == "curve"

    @property
    def checkpoint_every(self) -> int:
        """The steps between two checkpoints: of a curve about a part of the smallest distance of two points."""
        if not self.is_curve:
            return max(1, min(25, self.steps))
        shares = sorted({0.0, *self.spec.at})
        distance = min(np.diff(shares)) * self.steps
        return max(1, round(distance / math.ceil(distance / MOST_STEPS_LOST)))

    @property
    def table(self) -> Path:
        """The folder of the evaluation."""
        return self.out / TABLE_FOLDER

    @property
    def kept(self) -> Path:
        """The folder of the pictures and their scores: that of the owner's evaluation, if its pictures are the same."""
        if self.owner is None or (self.table / "pictures").is_dir():  # some are there already
            return self.table
        mine, theirs = (
            (spec.preset, spec.settings, spec.prompts, spec.images) for spec in (self.spec, self.owner.spec)
        )
        same = mine == theirs and set(self.spec.rows) <= set(self.owner.spec.rows)
        return self.owner.kept if same else self.table

    def runs(self) -> list[PlannedRun]:
        """All runs, seed by seed, so that early results have every row.

        Raises:
            ConfigError: settings are wrong; a line for each problem.
        """
        if self.owner is not None:
            return self.owner.runs()
        every = self.checkpoint_every
        made, problems = [], list[str]()
        for seed in range(self.seeds):
            for row, run in self.spec.runs.items():
                name = f"{Row(name=row, what='base').folder}-s{seed}"
                try:
                    values = _read_values(run.preset, run.settings)
                except ConfigError as error:
                    problems.append(f"{row}: {error}")
                    continue
                settings = {
                    "run.seed": seed,
                    "run.name": name,
                    "run.folder": str(self.out / "runs"),
                    "training.steps": self.steps,
                    "training.max_seconds": None,
                    "training.checkpoint_every": every,
                    "training.keep_checkpoints": math.ceil(self.steps / every) + 1 if self.is_curve else 2,
                    "evaluation.enabled": False,
                }
                found = override(values, _concerning(run.settings, self.overrides))
                for key, value in settings.items():
                    set_value(values, key, value)
                config, wrong = salvage_config(values)
                problems += [f"{row}: {problem.message}" for problem in [*found, *wrong]]
                problems += _find_own(row, run.settings)
                made.append(PlannedRun(row, seed, config, self.out / "runs" / name))
        problems += _find_own("the command line", [one.partition("=")[0] for one in self.overrides])
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))
        return made

    def evaluation_config(self) -> Config:
        """The settings of the evaluation: those of the world's preset.

        Raises:
            ConfigError: settings are wrong; a line for each problem.
        """
        values = _read_values(self.spec.preset, self.spec.settings)
        found = override(values, self.overrides)
        set_value(values, "evaluation.images_per_prompt", self.spec.images)
        config, wrong = salvage_config(values)
        problems = [problem.message for problem in [*found, *wrong]] + _find_own("settings", self.spec.settings)
        if problems:
            raise ConfigError("\n".join(f"the evaluation: {problem}" for problem in problems))
        return config

    def describe(self, pictures: int | None) -> list[str]:
        """What it takes, in lines for a reader.

        Args:
            pictures: pictures of each evaluated row; None if the prompts are not there.
        """
        runs = self.runs()
        left = sum(max(0, self.steps - run.steps_done) for run in runs)
        rows = len(self.spec.rows) + len(runs) * len(self.points)
        evaluation = f"{rows} rows" + (f" of {pictures} pictures" if pictures is not None else "")
        if pictures is not None and self.world == "shapes":
            evaluation = f"about {in_words(rows * pictures * PICTURE_SECONDS)} for {evaluation}, less what is there"
        then = "" if self.experiment.kind == "profile" else f", and the evaluation: {evaluation}"
        lines = [
            f"{self.experiment.title}, world {self.world}: {len(runs)} runs of {self.steps} steps "
            f"({len(self.spec.runs)} rows x {self.seeds}), {sum(run.finished for run in runs)} finished",
            f"left: about {in_words(left * self.spec.step_seconds)} of training{then}",
            f"needs: {self.spec.needs}",
        ]
        if self.owner is not None:
            lines.append(f"the runs are those of {self.owner.experiment.name}, in {self.owner.out}")
        if judging := self.spec.judging:
            of_row = judging.pairs if pictures is None else min(pictures, judging.pairs)
            pairs = self.seeds * (len(self.spec.rows) + len(self.spec.runs) - 1) * of_row
            lines.append(f"judging: at most {pairs} pairs, each a call of {judging.judge}")
        return lines

    def check_folder(self) -> None:
        """Checks that its folder, and that of the runs, were begun with this plan, if they were begun.

        Raises:
            ConfigError: they were begun with another one.
        """
        if self.owner is not None:
            self.owner.check_folder()
        mine, earlier = _to_json(self), read_plan(self.out)
        if earlier is None:
            return
        differing = [key for key in mine if key != "seeds" and mine[key] != earlier.get(key)]
        if differing:
            raise ConfigError(
                f"--out: {self.out} was begun with another plan ({', '.join(differing)} differs); use the same "
                "options, or another --out"
            )

    def keep(self) -> None:
        """Writes the plan into its folder.

        Raises:
            ConfigError: the folder was begun with another plan.
            StorageError: it cannot be written.
        """
        self.check_folder()
        if self.owner is not None:
            self.owner.keep()
        with storing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        earlier = read_plan(self.out)
        begun = earlier.get("begun") if earlier is not None else look_around()
        write_text(self.out / PLAN_FILE, json.dumps({**_to_json(self), "begun": begun}, indent=1) + "\n")


def make_plan(
    experiment: Experiment,
    world: str,
    *,
    seeds: int,
    budget_s: float | None,
    out: Path,
    overrides: tuple[str, ...] = (),
) -> PaperPlan:
    """Plans an experiment.

    Args:
        experiment, world: which and where.
        seeds: how many.
        budget_s: seconds of training for all runs together, by the plan's estimate; None: the steps of the file, or
            those with which the folder was begun.
        out: the folder.
        overrides: settings for all runs.

    Raises:
        ConfigError: the experiment has no such world, or the budget is too small for a step of each run.
    """
    if world != "shapes" and world != "real":
        raise ConfigError(f"--world: there is no world {world!r}; choose shapes or real")
    if world not in experiment.worlds:
        raise ConfigError(f"{experiment.name} cannot be run in {world}, only in {', '.join(experiment.worlds)}")
    spec = experiment.worlds[world]
    if spec.shares is not None:
        shared = load_experiment(spec.shares)
        folder = out.parent / folder_name(shared, world)
        if folder == out:
            raise ConfigError(f"--out: {out} is the folder of {shared.name}, whose runs are used; give another one")
        owner = make_plan(shared, world, seeds=seeds, budget_s=budget_s, out=folder, overrides=overrides)
        return PaperPlan(experiment, world, seeds, owner.steps, out, overrides, owner)
    earlier = read_plan(out)
    steps = earlier["steps"] if earlier is not None else spec.steps
    if budget_s is not None:
        steps = min(spec.steps, int(budget_s / (len(spec.runs) * seeds * spec.step_seconds)))
        if steps < (fewest := experiment.fewest_steps):
            least, word = in_words(fewest * len(spec.runs) * seeds * spec.step_seconds), "step" + "s" * (fewest > 1)
            raise ConfigError(
                f"--budget: {fewest} {word} of each of {len(spec.runs) * seeds} runs take about {least} already"
            )
    return PaperPlan(experiment, world, seeds, steps, out, overrides)


def folder_name(experiment: Experiment, world: str) -> str:
    """The name of an experiment's folder, if the user gives none."""
    return f"{experiment.name}-{world}"


def read_plan(out: Path) -> dict[str, Any] | None:
    """The plan that a folder was begun with; None if there is none."""
    try:
        plan = json.loads((out / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return plan if isinstance(plan, dict) and isinstance(plan.get("steps"), int) else None


def _read_values(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a preset, with other settings by dotted key, not yet checked."""
    values = read_preset(preset)
    for key, value in settings.items():
        set_value(values, key, value)
    return values


def _concerning(settings: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The overrides for a run with these settings: none within a section that they give whole, with a name of its own.

    The path of the preset's feature map is not that of another one.
    """
    whole = tuple(f"{key}." for key, value in settings.items() if isinstance(value, dict) and "name" in value)
    return [one for one in overrides if not one.startswith(whole)]


def _find_own(where: str, keys: Iterable[str]) -> list[str]:
    """What is wrong with settings that the plan itself decides on."""
    return [f"{where}: {key} cannot be set here: {_OWN[key]}" for key in keys if key in _OWN]


def _to_json(plan: PaperPlan) -> dict[str, Any]:
    return {
        "experiment": plan.experiment.name,
        "spec": json.loads(plan.spec.model_dump_json()),
        "world": plan.world,
        "seeds": plan.seeds,
        "steps": plan.steps,
        "overrides": list(plan.overrides),
    }
