"""The paper's experiments: every file, the plans, and the page from a folder's files. Nothing is trained here."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from drpo.checks.plan import Plan
from drpo.checks.settings import check_settings
from drpo.cli.paper import trained_rows
from drpo.errors import ConfigError
from drpo.evaluation.table.row import parse_rows
from drpo.paper.budget import in_words, parse_budget
from drpo.paper.experiment import experiment_names, load_experiment
from drpo.paper.plan import PaperPlan, make_plan


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


def test_pictures_are_shared_with_the_owner_of_the_runs(tmp_path: Path) -> None:
    figure = make_plan(load_experiment("figure2"), "shapes", seeds=1, budget_s=None, out=tmp_path / "figure2-shapes")
    assert figure.kept == tmp_path / "table2-shapes" / "table"
    assert figure.table == tmp_path / "figure2-shapes" / "table", "its columns are its own"
    own = figure.spec.model_copy(update={"images": 1})
    experiment = figure.experiment.model_copy(update={"worlds": {"shapes": own}})
    fewer = replace(figure, experiment=experiment)
    assert fewer.kept == fewer.table, "the judge would see pictures that it does not have"
    table = make_plan(load_experiment("table2"), "real", seeds=1, budget_s=None, out=tmp_path / "table2-real")
    assert table.kept == table.table, "figure 3 has no multi-step rows"


@pytest.mark.parametrize(("name", "world"), WORLDS)
def test_a_guard_stands_beside_the_scores_of_several_pictures_of_a_prompt(name: str, world: str) -> None:
    experiment = load_experiment(name)
    spec = experiment.worlds[world]  # type: ignore[index]
    assert spec.diversity or spec.images == 1 or experiment.kind == "profile"


def test_only_the_small_world_has_a_time_for_its_pictures(tmp_path: Path) -> None:
    small, real = (
        make_plan(load_experiment("table1"), world, seeds=1, budget_s=None, out=tmp_path).describe(1000)[1]
        for world in ("shapes", "real")
    )
    assert small.endswith("and the evaluation: about 6 min for 7 rows of 1000 pictures, less what is there")
    assert real.endswith("and the evaluation: 9 rows of 1000 pictures")


def test_budgets_in_the_docs_make_the_steps_that_stand_beside_them(tmp_path: Path) -> None:
    text = Path(__file__).parents[3].joinpath("docs", "paper.md").read_text()
    found = re.findall(r"drpo paper (\w+)(?: --world shapes)? --seeds (\d) --budget (\w+)[`:#a-z, ]+(\d+) steps", text)
    assert len(found) == 4
    for name, seeds, budget, steps in found:
        out = tmp_path / name
        plan = make_plan(load_experiment(name), "shapes", seeds=int(seeds), budget_s=parse_budget(budget), out=out)
        assert plan.steps == int(steps), name
