"""The paper's experiments: every file, the plans, and the page from a folder's files. Nothing is trained here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.chat_server import chat_server, prefer_bright
from support.local_ranker import LocalClient

from drpo.checks.plan import Plan
from drpo.checks.settings import check_settings
from drpo.cli.paper import trained_rows
from drpo.data.prompts.record import PromptRecord
from drpo.errors import ConfigError, EvaluationError
from drpo.evaluation.plan import plan_images
from drpo.evaluation.table.pictures import PictureFolder
from drpo.evaluation.table.row import Row, parse_rows
from drpo.paper.budget import in_words, parse_budget
from drpo.paper.experiment import Experiment, JudgingSpec, experiment_names, load_experiment
from drpo.paper.judged import find_matches, keep_judge, read_outcomes
from drpo.paper.page import write_page
from drpo.paper.plan import PaperPlan, make_plan
from drpo.paper.result import join_seeds, row_name
from drpo_rewards.rewards.judge.reward import Judge


def write(path: Path, kind: str = "table", **spec: Any) -> str:
    """Writes an experiment with one row, x, and other values of its world. Returns the path of the file."""
    world = {"preset": "shapes", "needs": "nothing", "runs": {"x": {"preset": "shapes"}}, "steps": 1000}
    world |= {"step_seconds": 1, **spec}
    path.write_text(yaml.safe_dump({"title": "Mine", "kind": kind, "paper": {}, "worlds": {"shapes": world}}))
    return str(path)


WORLDS = [(name, world) for name in experiment_names() for world in load_experiment(name).worlds]


@pytest.mark.parametrize(("name", "world"), WORLDS)
def test_every_experiment_has_settings_that_exist(name: str, world: str, tmp_path: Path) -> None:
    plan = make_plan(load_experiment(name), world, seeds=2, budget_s=None, out=tmp_path)
    runs = plan.runs()
    assert len(runs) == 2 * len(plan.spec.runs)
    assert len({run.run_dir for run in runs}) == len(runs)
    assert parse_rows(plan.spec.rows)
    assert plan.evaluation_config().evaluation.images_per_prompt == plan.spec.images
    for run in runs[: len(plan.spec.runs)]:
        wrong = [finding for finding in check_settings(Plan(run.config)) if finding.state == "wrong"]
        assert not [one for one in wrong if one.about != "features.path"], "weights that a reader provides"
        assert (run.config.training.steps, run.config.training.max_seconds) == (plan.steps, None)
        every = run.config.training.checkpoint_every
        assert all(point % every == 0 or point == plan.steps for point in plan.points), "a run ends with a checkpoint"
    assert [run.config.run.seed for run in runs[:: len(plan.spec.runs)]] == [0, 1]


def test_table_2_differs_in_the_objective_and_its_settings_only() -> None:
    plan = make_plan(load_experiment("table2"), "shapes", seeds=1, budget_s=None, out=Path("unused"))
    assert set(plan.spec.runs) == {"DRaFT", "VGG-Flow", "DPO", "PSO", "GRPO", "DrPO", "DrPO 128 pairs"}
    configs = [run.config for run in plan.runs()]
    same = [(one.prompts, one.training.model_copy(update={"pairs": 1}), one.lora, one.rewards) for one in configs]
    assert all(one == same[0] for one in same)


def test_a_budget_shortens_all_runs_alike(tmp_path: Path) -> None:
    table2 = load_experiment("table2")
    plan = make_plan(table2, "shapes", seeds=3, budget_s=parse_budget("0.5h"), out=tmp_path)
    assert plan.steps == int(1800 / (21 * 1.6))
    plan.keep()
    assert make_plan(table2, "shapes", seeds=3, budget_s=None, out=tmp_path).steps == plan.steps
    make_plan(table2, "shapes", seeds=4, budget_s=None, out=tmp_path).keep()  # more seeds go on
    with pytest.raises(ConfigError, match=r"begun with another plan \(steps differs\)"):
        make_plan(table2, "shapes", seeds=3, budget_s=parse_budget("10m"), out=tmp_path).keep()
    with pytest.raises(ConfigError, match=r"begun with another plan \(overrides differs\)"):
        make_plan(table2, "shapes", seeds=3, budget_s=None, out=tmp_path, overrides=("lora.rank=2",)).keep()
    with pytest.raises(ConfigError, match=r"--budget: 1 step of each of 21 runs take about 34 s"):
        make_plan(table2, "shapes", seeds=3, budget_s=30, out=tmp_path / "other")
    with pytest.raises(ConfigError, match="search cannot be run in real, only in shapes"):
        make_plan(load_experiment("search"), "real", seeds=1, budget_s=None, out=tmp_path / "other")
    assert [in_words(seconds) for seconds in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]
    for text in ("", "x", "3d", "-1m", "nan", "inf"):
        with pytest.raises(ConfigError, match="is no time"):
            parse_budget(text)


@pytest.mark.parametrize("steps", [1, 2, 7, 42, 60, 150])
@pytest.mark.parametrize("at", [[0.2, 0.4, 0.6, 0.8, 1.0], [0.5, 0.75], [1.0], [0.01, 0.5, 0.99]])
def test_every_point_of_a_curve_has_a_checkpoint(steps: int, at: list[float], tmp_path: Path) -> None:
    mine = load_experiment(write(tmp_path / "mine.yaml", "curve", at=at))
    plan = make_plan(mine, "shapes", seeds=1, budget_s=steps, out=tmp_path)
    assert plan.steps == steps
    training = plan.runs()[0].config.training
    made = [step for step in range(1, steps + 1) if step % training.checkpoint_every == 0 or step == steps]
    assert set(plan.points) <= set(made[-training.keep_checkpoints :])
    for share in at:
        assert min(abs(point - share * steps) for point in plan.points) <= training.checkpoint_every
    assert [name for name, _ in trained_rows(plan, plan.runs())] == [f"x seed 0 step {step}" for step in plan.points]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"at": []}, "at: Tuple should have at least 1 item"),
        ({"at": [0.5, 2.0]}, "less than or equal to 1"),
        ({"at": [math.nan]}, "should be a finite number"),
        ({"at": [0.5, 1.0]}, "worlds.shapes.at: only the kind curve has points"),
        ({"rows": []}, "rows: Tuple should have at least 1 item"),
        ({"rows": ["mine"]}, "--row: 'mine' is not NAME=WHAT"),
        ({"rows": ["X=base"]}, "two rows are named 'x'"),
        ({"runs": {}}, "runs: Dictionary should have at least 1 item"),
        ({"runs": {"": {"preset": "shapes"}}}, "at least 1 character"),
        ({"runs": {"n" * 71: {"preset": "shapes"}}}, "at most 70 characters"),
        ({"runs": {"a\nb": {"preset": "shapes"}}}, "a line break"),
        ({"step_seconds": math.inf}, "should be a finite number"),
    ],
)
def test_what_would_fail_after_the_training_is_refused(spec: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(write(tmp_path / "mine.yaml", **spec))


def test_a_profile_needs_a_step_after_the_first(tmp_path: Path) -> None:
    profile = load_experiment(write(tmp_path / "mine.yaml", "profile"))
    with pytest.raises(ConfigError, match="--budget: 2 steps of each of 1 runs take about 2 s already"):
        make_plan(profile, "shapes", seeds=1, budget_s=1, out=tmp_path)
    with pytest.raises(ConfigError, match="the kind profile needs at least 2"):
        load_experiment(write(tmp_path / "mine.yaml", "profile", steps=1))


def test_settings_that_the_plan_decides_on_are_refused(tmp_path: Path) -> None:
    def make(*overrides: str, **spec: Any) -> PaperPlan:
        mine = load_experiment(write(tmp_path / "mine.yaml", **spec))
        return make_plan(mine, "shapes", seeds=1, budget_s=None, out=tmp_path, overrides=overrides)

    with pytest.raises(ConfigError, match=r"command line: training\.steps cannot be set here: .*--budget"):
        make("training.steps=5").runs()
    with pytest.raises(ConfigError, match=r"evaluation: settings: evaluation\.images_per_prompt cannot be set here"):
        make(settings={"evaluation.images_per_prompt": 3}).evaluation_config()
    with pytest.raises(ConfigError, match=r"x: run\.seed cannot be set here"):
        make(runs={"x": {"preset": "shapes", "settings": {"run.seed": 1}}}).runs()
    with pytest.raises(ConfigError, match="x: there is no preset 'shapez'; did you mean shapes"):
        make(runs={"x": {"preset": "shapez"}}).runs()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: Mine\npaper: {columns: [a], rows: {x: [1, 2]}}\nworlds: {}\nkinds: table\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(file))
    assert "mine.yaml:2: paper: Value error, the row x has 2 numbers for 1 columns" in str(caught.value)
    assert "mine.yaml:4: kinds: Extra inputs" in str(caught.value)
    with pytest.raises(ConfigError, match="there is no experiment 'table22'; did you mean table2"):
        load_experiment("table22")
    file.write_text("[")
    with pytest.raises(ConfigError):
        load_experiment(str(file))


def test_an_experiment_uses_the_runs_of_another(tmp_path: Path) -> None:
    def make(name: str) -> PaperPlan:
        return make_plan(load_experiment(name), "real", seeds=2, budget_s=36000, out=tmp_path / f"{name}-real")

    figure, table = make("figure2"), make("table1")
    assert figure.runs() == table.runs()
    assert figure.steps == table.steps < 1000
    assert any("the runs are those of table1, in" in line for line in figure.describe(10))
    assert "judging: at most 120 pairs, each a call of judge" in figure.describe(10)
    figure.keep()
    table.keep()  # the folder of the runs was begun with this plan
    with pytest.raises(ConfigError, match="is the folder of table1, whose runs are used"):
        make_plan(load_experiment("figure2"), "real", seeds=1, budget_s=None, out=tmp_path / "table1-real")


def test_the_curve_of_figure_3_has_the_runs_of_table_2(tmp_path: Path) -> None:
    def make(name: str) -> PaperPlan:
        return make_plan(load_experiment(name), "real", seeds=1, budget_s=None, out=tmp_path / f"{name}-real")

    curve, table = make("figure3"), make("table2")
    assert table.runs() == curve.runs()
    assert (curve.points, table.points) == ([*range(100, 1001, 100)], [1000])
    training = curve.runs()[0].config.training
    assert (training.checkpoint_every, training.keep_checkpoints) == (50, 21)  # a killed run makes 50 steps again


def test_the_command_line_changes_a_section_of_all_runs_but_those_that_give_it_whole(tmp_path: Path) -> None:
    overrides = ("features.path=mine.pth", "lora.rank=2")
    plan = make_plan(load_experiment("table3"), "real", seeds=1, budget_s=None, out=tmp_path, overrides=overrides)
    features = {run.row: run.config.features for run in plan.runs()}
    assert {str(features[row].path) for row in features if features[row].name == "latent_mae"} == {"mine.pth"}
    assert (features["VAE-dec.+DINOv2"].path, features["raw latents"].path) == ("facebook/dinov2-base", None)
    assert {run.config.lora.rank for run in plan.runs()} == {2}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shares: figure2", "figure2 has no runs of its own in shapes"),
        ("shares: tabel2", "did you mean table2"),
        ("shares: table2, at: [1.0]", "at are those of table2"),
        ("shares: table2, steps: 3, runs: {}", "runs and steps are those of table2; leave them out"),
        ("shares: table2, judging: {judge: clip, first: DRPO}", "there is no run 'DRPO'; choose from DRaFT"),
        ("shares: table2, judging: {judge: clip, first: DrPO, pairs: 0}", "judging.pairs"),
        ("shares: table2", "worlds.shapes.judging: give it for the kind judged"),
    ],
)
def test_what_cannot_be_shared_or_judged_is_refused(spec: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"title: Mine\nkind: judged\npaper: {{}}\nworlds: {{shapes: {{{spec}}}}}\n")
    with pytest.raises(ConfigError, match=message):
        load_experiment(str(file))


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
    assert "drpo paper small.yaml --world shapes --seeds 2" in page
    assert "curve-0.svg" in page
    curve = (plan.out / "curve-0.svg").read_bytes()
    path.unlink()
    assert write_page(plan).read_text() == page
    assert (plan.out / "curve-0.svg").read_bytes() == curve
    (plan.out / "table" / "results.json").write_text("{")
    with pytest.raises(EvaluationError, match="run the experiment again"):
        write_page(plan)


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
