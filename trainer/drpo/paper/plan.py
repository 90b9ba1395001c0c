"""The runs of an experiment: which, how long each, and what all of it takes. Its folder keeps the first plan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.config import Config, override, read_preset, salvage_config, set_value
from drpo.errors import ConfigError
from drpo.evaluation.table.row import Row
from drpo.paper.experiment import Experiment, World, WorldSpec, load_experiment
from drpo.training.files import storing, write_text
from drpo.training.metrics import read_metrics
from drpo.training.run_folder import ADAPTER, CHECKPOINTS, METRICS_FILE

PLAN_FILE = "plan.json"
TABLE_FOLDER = "table"
PICTURE_SECONDS = 0.05
"""What a picture of the small world takes about: generated, kept, scored and measured."""


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
        """The steps at which adapters are evaluated; the last one for a table."""
        return sorted({max(1, round(share * self.steps)) for share in self.spec.at})

    @property
    def table(self) -> Path:
        """The folder of the evaluation."""
        return self.out / TABLE_FOLDER

    def runs(self) -> list[PlannedRun]:
        """All runs, seed by seed, so that early results have every row.

        Raises:
            ConfigError: settings are wrong; a line for each problem.
        """
        if self.owner is not None:
            return self.owner.runs()
        made, problems = [], []
        for seed in range(self.seeds):
            for row, run in self.spec.runs.items():
                name = f"{Row(name=row, what='base').folder}-s{seed}"
                values = read_preset(run.preset)
                for key, value in run.settings.items():
                    set_value(values, key, value)
                every = self.points[0] if len(self.points) > 1 else max(1, min(25, self.steps))
                settings = {
                    "run.seed": seed,
                    "run.name": name,
                    "run.folder": str(self.out / "runs"),
                    "training.steps": self.steps,
                    "training.max_seconds": None,
                    "training.checkpoint_every": every,
                    "training.keep_checkpoints": len(self.points) + 1 if len(self.points) > 1 else 2,
                    "evaluation.enabled": False,
                }
                found = [*override(values, self.overrides)]
                for key, value in settings.items():
                    set_value(values, key, value)
                config, wrong = salvage_config(values)
                problems += [f"{row}: {problem.message}" for problem in [*found, *wrong]]
                made.append(PlannedRun(row, seed, config, self.out / "runs" / name))
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))
        return made

    def evaluation_config(self) -> Config:
        """The settings of the evaluation: those of the world's preset.

        Raises:
            ConfigError: settings are wrong; a line for each problem.
        """
        values = read_preset(self.spec.preset)
        for key, value in self.spec.settings.items():
            set_value(values, key, value)
        found = override(values, self.overrides)
        set_value(values, "evaluation.images_per_prompt", self.spec.images)
        config, wrong = salvage_config(values)
        if found or wrong:
            raise ConfigError("\n".join(problem.message for problem in [*found, *wrong]))
        return config

    def describe(self, pictures: int) -> list[str]:
        """What it takes, in lines for a reader.

        Args:
            pictures: pictures of each evaluated row.
        """
        runs = self.runs()
        left = sum(max(0, self.steps - run.steps_done) for run in runs)
        rows = len(self.spec.rows) + len(runs) * len(self.points)
        training, evaluation = left * self.spec.step_seconds, rows * pictures * PICTURE_SECONDS
        lines = [
            f"{self.experiment.title}, world {self.world}: {len(runs)} runs of {self.steps} steps "
            f"({len(self.spec.runs)} rows x {self.seeds}), {sum(run.finished for run in runs)} finished",
            f"left: about {in_words(training)} of training; at most {in_words(evaluation)} for {rows} rows of "
            f"{pictures} pictures",
            f"needs: {self.spec.needs}",
        ]
        if self.owner is not None:
            lines.append(f"the runs are those of {self.owner.experiment.name}, in {self.owner.out}")
        if judging := self.spec.judging:
            pairs = self.seeds * (len(self.spec.rows) + len(self.spec.runs) - 1) * min(pictures, judging.pairs)
            lines.append(f"judging: at most {pairs} pairs, each a call of {judging.judge}")
        return lines

    def keep(self) -> None:
        """Writes the plan into its folder, once.

        Raises:
            ConfigError: the folder was begun with another plan.
            StorageError: it cannot be written.
        """
        if self.owner is not None:
            self.owner.keep()
        path = self.out / PLAN_FILE
        mine = _to_json(self)
        earlier = read_plan(self.out)
        if earlier is None:
            with storing(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
        else:
            differing = [key for key in mine if key != "seeds" and mine[key] != earlier.get(key)]
            if differing:
                raise ConfigError(
                    f"--out: {self.out} was begun with another plan ({', '.join(differing)} differs); use the same "
                    "options, or another --out"
                )
        write_text(path, json.dumps(mine, indent=1) + "\n")


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
        if steps < 1:
            least = in_words(len(spec.runs) * seeds * spec.step_seconds)
            raise ConfigError(
                f"--budget: one step of each of {len(spec.runs) * seeds} runs takes about {least} already"
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
    return plan if isinstance(plan, dict) and "steps" in plan else None


def _to_json(plan: PaperPlan) -> dict[str, Any]:
    return {
        "experiment": plan.experiment.name,
        "spec": json.loads(plan.spec.model_dump_json()),
        "world": plan.world,
        "seeds": plan.seeds,
        "steps": plan.steps,
        "overrides": list(plan.overrides),
    }


def parse_budget(text: str) -> float:
    """Seconds of "90m", "2h", "1.5h" or "3600".

    Raises:
        ConfigError: it is written differently, or is not positive.
    """
    number, unit = (text[:-1], text[-1]) if text[-1:] in "smh" and text else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ConfigError(f"--budget: {text!r} is no time; write 90m, 2h or a number of seconds")
    return seconds


def in_words(seconds: float) -> str:
    """A time for a reader."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
