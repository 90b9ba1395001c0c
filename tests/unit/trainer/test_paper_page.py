"""The page of an experiment, from a folder's files. Nothing is trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chat_server import chat_server, prefer_bright
from support.local_ranker import LocalClient

from drpo.data.prompts.record import PromptRecord
from drpo.errors import EvaluationError
from drpo.evaluation.plan import plan_images
from drpo.evaluation.table.pictures import PictureFolder
from drpo.evaluation.table.row import Row
from drpo.paper.experiment import Experiment, JudgingSpec
from drpo.paper.judged import find_matches, keep_judge, read_outcomes
from drpo.paper.page import write_page
from drpo.paper.plan import PaperPlan, make_plan
from drpo.paper.result import join_seeds, row_name
from drpo_rewards.rewards.judge.reward import Judge


def cell(mean: float, difference: float | None = None, half: float = 1.0, **more: Any) -> dict[str, Any]:
    between = {"value": difference, "ci95": [difference - half, difference + half]} if difference is not None else None
    return {"mean": mean, **({"difference": between} if between else {}), **more}


def test_seeds_are_joined_with_both_variances() -> None:
    alone = join_seeds([cell(60, 5)])
    assert (alone.mean, alone.difference, alone.significant) == (60, 5, True)
    assert alone.ci95 == pytest.approx((4, 6))
    joined = join_seeds([cell(60, 5), cell(64, 9)])
    # The standard error over prompts is 1 / 1.96, and that over seeds sqrt(8 / 2) = 2.
    half = 1.96 * ((1 / 1.96) ** 2 + 4) ** 0.5
    assert joined.ci95 == pytest.approx((7 - half, 7 + half))
    assert (joined.low, joined.mean, joined.high) == (60, 62, 64)
    assert not join_seeds([cell(60, 5), cell(52, -3)]).significant
    without = cell(64, 9)
    without["difference"]["ci95"] = None
    assert not join_seeds([cell(60, 5), without]).significant


@pytest.fixture
def plan(tmp_path: Path) -> PaperPlan:
    """A folder with the results of two seeds of two rows."""
    experiment = Experiment.model_validate(
        {
            "name": "small",
            "source": "small.yaml",
            "title": "A small one",
            "kind": "curve",
            "paper": {"columns": ["steps", "PS"], "rows": {"DrPO": [1, 23.49], "base": [50, 21.9], "SDXL": [4, None]}},
            "worlds": {
                "shapes": {
                    "needs": "nothing",
                    "preset": "shapes",
                    "runs": {"DrPO": {"preset": "shapes"}, "DPO": {"preset": "shapes-dpo"}},
                    "steps": 10,
                    "step_seconds": 1,
                    "at": [0.5, 1.0],
                }
            },
        }
    )
    plan = make_plan(experiment, "shapes", seeds=2, budget_s=None, out=tmp_path)
    cells = {"base": cell(50, tasks={"a": 40.0, "b": 60.0})}
    for run in plan.runs():
        run.run_dir.mkdir(parents=True)
        lines = [
            {"step": step, "time_s": 3600.0 * step / 10, "seconds": {"total": 2.0, "rank": 0.5}} for step in (1, 10)
        ]
        (run.run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        gain = 10 if run.row == "DrPO" else 0
        for step in plan.points:
            mean = 50 + gain * step / 10 + run.seed
            cells[row_name(run, step)] = cell(mean, mean - 50, tasks={"a": mean, "b": mean})
    column = {"prompts": "shapes", "title": "geneval/strict %", "digits": 1, "cells": cells}
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "results.json").write_text(json.dumps({"columns": [column]}))
    return plan


def test_the_page_has_both_numbers_and_is_made_again_from_its_files(plan: PaperPlan) -> None:
    path = write_page(plan)
    page = path.read_text()
    assert "| DrPO | 60.5* (60.0 to 61.0) |" in page
    assert "| DPO | 50.5 (50.0 to 51.0) |" in page
    for row in ("| DrPO | 1 | 23.49 |", "| base | 50 | 21.90 |", "| SDXL | 4 | - |"):
        assert row in page, "as the paper prints its numbers"
    assert "4 of 4 runs are not finished" in page
    assert "| base | 40.0 | 60.0 |" in page
    assert "4.00 hours of training" in page
    assert f"drpo paper {Path('small.yaml').absolute()} --world shapes --seeds 2" in page, "from any folder"
    assert "No column here shows whether a method wins by always drawing the same." in page
    assert "curve-0.svg" in page
    curve = (plan.out / "curve-0.svg").read_bytes()
    path.unlink()
    assert write_page(plan).read_text() == page
    assert (plan.out / "curve-0.svg").read_bytes() == curve
    (plan.out / "table" / "results.json").write_text("{")
    with pytest.raises(EvaluationError, match="run the experiment again"):
        write_page(plan)


def test_the_page_says_what_guards_its_scores_and_where_it_was_made(plan: PaperPlan) -> None:
    results = json.loads((plan.table / "results.json").read_text())
    guards = [{**results["columns"][0], "title": title} for title in ("diversity", "colours in use")]
    results |= {"columns": [*results["columns"], *guards], "rewards": {"geneval": "1.2/abc"}}
    (plan.table / "results.json").write_text(json.dumps(results))
    plan.keep()
    page = write_page(plan).read_text()
    assert "Guards of the scores: diversity, colours in use. A method" in page
    begun = json.loads((plan.out / "plan.json").read_text())["begun"]
    assert f"cd {begun['folder']}\n" in page
    assert f"Begun on {begun['date']} with drpo " in page
    assert f"torch {begun['versions']['torch']}" in page
    assert "Rewards: geneval `1.2/abc`." in page
    (plan.out / "plan.json").write_text(
        json.dumps(json.loads((plan.out / "plan.json").read_text()) | {"begun": {**begun, "date": "2026-01-01"}})
    )
    plan.keep()
    assert "Begun on 2026-01-01" in write_page(plan).read_text(), "a later start does not change it"


def test_a_profile_needs_no_evaluation(plan: PaperPlan) -> None:
    profile = PaperPlan(plan.experiment.model_copy(update={"kind": "profile"}), plan.world, 2, 7, plan.out)
    assert profile.describe(None)[1] == "left: about 0 s of training"
    assert plan.describe(None)[1] == "left: about 0 s of training, and the evaluation: 9 rows"
    (plan.out / "table" / "results.json").unlink()
    page = write_page(profile).read_text()
    assert "| DrPO | 96 | 2.000 | 0.500 |" in page
    assert "--budget 30.0s    # 7 steps each" in page, "the same command makes as many steps"
    assert "times as long as one of" in page


def test_a_judge_compares_the_rows_of_each_seed(plan: PaperPlan) -> None:
    judging = JudgingSpec(judge="judge", first="DrPO", pairs=3)
    spec = plan.spec.model_copy(update={"judging": judging, "at": (1.0,)})
    experiment = plan.experiment.model_copy(update={"kind": "judged", "worlds": {"shapes": spec}})
    judged = PaperPlan(experiment, "shapes", 2, plan.steps, plan.out)
    planned = plan_images([PromptRecord(f"picture {i}") for i in range(4)], images_per_prompt=1)
    table = plan.out / "table"
    levels = {"base": 200, "DrPO seed 0": 100, "DPO seed 0": 50, "DrPO seed 1": 200, "DPO seed 1": 50}
    for row, level in levels.items():
        pictures = PictureFolder(table / "pictures" / Row(name=row, what="base").folder / "set")
        painted = np.full((4, 8, 8, 3), level, np.uint8)
        pictures.draw(planned, lambda _, painted=painted: painted, batch_size=4)
        (pictures.folder.parent / "row.json").write_text("{}")
    with pytest.raises(EvaluationError, match=r"judge\.json is missing or damaged"):
        read_outcomes(judged)
    keep_judge(judged, "1")
    with chat_server(prefer_bright) as server:
        client: Any = LocalClient(Judge("endpoint", model="seer", base_url=server.url, retries=0), "judge")  # type: ignore[arg-type]
        for match in find_matches(judged):
            with pytest.raises(EvaluationError, match="verdicts are missing"):
                read_outcomes(judged)
            match.verdicts("1").judge(match.pairs, client)
    (outcomes,) = read_outcomes(judged).values()
    rates = {row: (outcome.win[0], outcome.tie[0], outcome.loss[0]) for row, outcome in outcomes.items()}
    assert rates == {"base": (0.0, 0.5, 0.5), "DPO": (1.0, 0.0, 0.0)}
    assert {outcome.pairs for outcome in outcomes.values()} == {6}, "at most 3 of each seed"
    column = {"prompts": "set", "title": "a column", "cells": {name: cell(50.0) for name in levels}}
    (table / "results.json").write_text(json.dumps({"columns": [column]}))
    page = write_page(judged).read_text()
    assert "![DrPO against the other rows](judge-0.svg)" in page
    assert "| DPO | 100.0 (100.0 to 100.0) | 0.0 (0.0 to 0.0) |" in page
    assert (plan.out / "judge-0.svg").is_file()
