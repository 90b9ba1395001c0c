"""What a judge says of an experiment's pictures: which rows it compares, and its verdicts over all seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drpo.errors import EvaluationError
from drpo.evaluation.judging import Outcome, Pair, Verdicts, find_pairs, summarize
from drpo.evaluation.table.row import Row
from drpo.paper.experiment import JudgingSpec
from drpo.paper.plan import PaperPlan
from drpo.paper.result import row_name
from drpo.training.files import storing, write_text

JUDGE_FOLDER = "judge"
JUDGE_FILE = "judge.json"


@dataclass(frozen=True)
class Match:
    """Two rows whose pictures are compared.

    Attributes:
        other: the row that the first one is judged against, as the experiment names it.
        label: both rows, with their seeds.
        pairs: their pictures, in a fixed random order.
        judge: the name of the judge.
        path: the file of the verdicts.
    """

    other: str
    label: str
    pairs: list[Pair]
    judge: str
    path: Path

    def verdicts(self, version: str) -> Verdicts:
        """The verdicts of this version of the judge."""
        return Verdicts(self.path, self.judge, version, both_orders=False)


def find_matches(plan: PaperPlan) -> Iterator[Match]:
    """What a judge compares: the first row of each seed with each other row of that seed.

    Args:
        plan: of an experiment of the kind judged.

    Raises:
        ConfigError: pictures are missing.
    """
    judging = _judging(plan)
    runs = {(run.row, run.seed): row_name(run) for run in plan.runs()}
    for seed in range(plan.seeds):
        first = runs[judging.first, seed]
        others = {name: name for name in (row.partition("=")[0] for row in plan.spec.rows)}
        others |= {row: runs[row, seed] for row in plan.spec.runs if row != judging.first}
        for other, name in others.items():
            ours, theirs = (plan.kept / "pictures" / Row(name=one, what="base").folder for one in (first, name))
            path = plan.out / JUDGE_FOLDER / f"{ours.name}-against-{theirs.name}.jsonl"
            yield Match(other, f"{first} against {name}", find_pairs(ours, theirs, judging.pairs), judging.judge, path)


def keep_judge(plan: PaperPlan, version: str) -> None:
    """Writes which judge gave the verdicts.

    Raises:
        StorageError: it cannot be written.
    """
    judge = {"judge": _judging(plan).judge, "version": version}
    folder = plan.out / JUDGE_FOLDER
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / JUDGE_FILE, json.dumps(judge, indent=1) + "\n")


def read_judge_version(plan: PaperPlan) -> str:
    """The version of the judge that gave the verdicts.

    Raises:
        EvaluationError: it was not kept yet.
    """
    path = plan.out / JUDGE_FOLDER / JUDGE_FILE
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} is missing or damaged: run the experiment again, it goes on there") from error


def read_outcomes(plan: PaperPlan) -> dict[str, dict[str, Outcome]]:
    """What the judge said over all seeds, by set of prompts and row.

    Raises:
        EvaluationError: verdicts are missing.
        ConfigError: pictures are missing.
    """
    version = read_judge_version(plan)
    lines: dict[str, dict[str, list[dict[str, object]]]] = {}
    for match in find_matches(plan):
        verdicts = match.verdicts(version)
        if missing := verdicts.missing(match.pairs):
            raise EvaluationError(f"{len(missing)} verdicts are missing: run the experiment again, it goes on there")
        for line in verdicts.of(match.pairs):
            lines.setdefault(line["prompts"], {}).setdefault(match.other, []).append(line)
    return {prompts: {row: summarize(found) for row, found in rows.items()} for prompts, rows in lines.items()}


def _judging(plan: PaperPlan) -> JudgingSpec:
    judging = plan.spec.judging
    if judging is None:
        raise EvaluationError(f"{plan.experiment.name} has nothing to judge")
    return judging
