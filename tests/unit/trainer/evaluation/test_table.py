"""A table of rows, with the embedded generator and the real GenEval reward, but without a server."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.local_ranker import LocalClient
from support.rewards import Redness

from drpo.config import Config, LoraConfig, load_config
from drpo.errors import ConfigError
from drpo.evaluation.metric import ShownMetric
from drpo.evaluation.table.distribution import has_inception
from drpo.evaluation.table.options import TableOptions
from drpo.evaluation.table.painters import check_model, find_model, load_painter
from drpo.evaluation.table.pictures import PictureFolder, append_lines, draw_missing, read_lines
from drpo.evaluation.table.prompt_set import PromptSet, make_sets
from drpo.evaluation.table.render import Column, Table
from drpo.evaluation.table.row import parse_row, parse_rows
from drpo.evaluation.table.run import evaluate_rows
from drpo.evaluation.table.scores import asked_rewards
from drpo.evaluation.table.statistics import Difference, make_cell
from drpo.generators import load_generator
from drpo.shapes.assets import generator_path
from drpo_rewards.api.contract import ModelInfo
from drpo_rewards.rewards.geneval.reward import GenevalReward
from drpo_rewards.rewards.vlm.soft_tifa import SoftTifa

ROWS = ("base=base", "tuned=ADAPTER", "stock=shapes,steps=1,guidance=0")
OPTIONS = TableOptions(fid="base", fid_features="map", grid=3)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that visibly changes the picture."""
    torch.manual_seed(3)
    generator = load_generator(generator_path(), lora=LoraConfig(rank=2))
    with torch.no_grad():
        for parameter in generator.adapter.parameters():
            parameter.normal_(std=0.12)
    folder = tmp_path_factory.mktemp("adapter")
    generator.adapter.save(folder)
    return folder


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("shapes", ["evaluation.images_per_prompt=2", "evaluation.prompts_per_task=2"])


@pytest.fixture(scope="module")
def sets(config: Config) -> list[PromptSet]:
    return make_sets(["two=shapes,tasks=colors+counting"], config)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Drawing:
    """Generates missing pictures, and stops like a killed process after `most` batches."""

    def __init__(self, sets: list[PromptSet], most: int = 99) -> None:
        self.sets, self.most, self.drawn = sets, most, 0

    def __call__(self, folder: Path, model: Any) -> None:
        draw_missing(folder, model, self.sets, lambda one: load_painter(one, "cpu"), batch_size=3, progress=self.count)

    def count(self, images: int) -> None:
        self.drawn += images
        self.most -= 1
        if self.most == 0:
            raise Killed


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, config: Config, sets: list[PromptSet], adapter: Path) -> Path:
    """The folder of a finished table whose first start was killed."""
    folder = tmp_path_factory.mktemp("table")
    models = [find_model(parse_row(row.replace("ADAPTER", str(adapter))), config) for row in ROWS]
    client: Any = LocalClient(GenevalReward(score="graded"))
    with pytest.raises(Killed):
        evaluate_rows(config, folder, models, sets, OPTIONS, client, draw=Drawing(sets, most=2))
    half = next(folder.glob("pictures/base/two/*.png"))
    half.unlink()  # a picture that is gone is generated again
    rest = Drawing(sets)
    table = evaluate_rows(config, folder, models, sets, OPTIONS, client, draw=rest)
    assert rest.drawn == 3 * 8 - 6 + 1
    asked = len(client.requests)
    again = Drawing(sets)
    assert evaluate_rows(config, folder, models, sets, OPTIONS, client, draw=again).to_json() == table.to_json()
    assert (again.drawn, len(client.requests)) == (0, asked), "nothing is made or asked twice"
    return folder


def test_stock_diffusers_and_the_one_step_generator_draw_the_same_pictures(out: Path, sets: list[PromptSet]) -> None:
    rows = {name: PictureFolder(out / "pictures" / name / "two") for name in ("base", "tuned", "stock")}
    for planned in sets[0].planned:
        base, tuned, stock = (rows[name].read(planned.key).astype(int) for name in ("base", "tuned", "stock"))
        assert np.abs(base - stock).max() <= 1
        assert np.abs(base - tuned).max() > 10
    lines = read_lines(out / "pictures" / "base" / "two" / "manifest-0.jsonl")
    assert set(lines[0]) == {"file", "task", "prompt", "metadata", "number", "seed"}


def test_prompts_with_other_metadata_are_scored_anew(tmp_path: Path, config: Config) -> None:
    """The file of prompts was mended: the pictures are as they were, what is asked of them is not."""
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "table"
    models = [find_model(parse_row("base=base"), config)]
    client: Any = LocalClient(GenevalReward(score="graded"))

    def evaluate(color: str, folder: Path) -> tuple[Table, int]:
        demand = {"include": [{"class": "circle", "count": 1, "color": color}], "tag": "colors"}
        prompts.write_text(json.dumps({"prompt": "a red circle", "task": "colors", "metadata": demand}) + "\n")
        sets = make_sets([f"mine=file,path={prompts}"], config)
        drawing = Drawing(sets)
        table = evaluate_rows(config, folder, models, sets, TableOptions(), client, draw=drawing)
        return table, drawing.drawn

    red, drawn = evaluate("red", out)
    assert drawn == 2
    green, drawn = evaluate("green", out)
    assert drawn == 0, "the pictures are not made again"
    assert green.to_json()["columns"][0] == evaluate("green", tmp_path / "fresh")[0].to_json()["columns"][0]
    assert green.to_json()["columns"][0] != red.to_json()["columns"][0]
    (manifest,) = out.glob("pictures/base/mine/manifest-*.jsonl")
    assert {line["metadata"]["include"][0]["color"] for line in read_lines(manifest)} == {"green"}
    asked = len(client.requests)
    evaluate("green", out)
    assert len(client.requests) == asked


def test_two_tables_share_pictures_and_scores(tmp_path: Path, out: Path, config: Config, sets: list[PromptSet]) -> None:
    models = [find_model(parse_row("base=base"), config)]
    client: Any = LocalClient(GenevalReward(score="graded"))
    drawing = Drawing(sets)
    other = tmp_path / "a" / "table"
    table = evaluate_rows(config, other, models, sets, TableOptions(), client, draw=drawing, kept=out)
    assert (drawing.drawn, len(client.requests)) == (0, 0)
    assert {file.name for file in other.iterdir()} > {"results.json", "table.md"}
    assert not (other / "pictures").exists()
    mine = json.loads((out / "results.json").read_text())["columns"][0]["cells"]["base"]
    assert table.to_json()["columns"][0]["cells"]["base"] == mine


def test_the_table_is_what_the_scores_say(out: Path, sets: list[PromptSet]) -> None:
    results = json.loads((out / "results.json").read_text())
    strict = next(column for column in results["columns"] if column["title"] == "geneval/strict %")
    for row in ("base", "tuned", "stock"):
        numbers = {line["seed"]: line["numbers"] for line in read_lines(out / "scores" / row / "two.jsonl")}
        by_task: dict[str, list[float]] = {}
        for planned in sets[0].planned:
            by_task.setdefault(planned.record.task, []).append(100 * numbers[planned.seed]["geneval/strict"])
        cell = strict["cells"][row]
        assert cell["mean"] == pytest.approx(np.mean([np.mean(one) for one in by_task.values()]))
        assert cell["tasks"] == pytest.approx({task: np.mean(one) for task, one in by_task.items()})
        assert cell["extra"]["correct_images"] <= cell["extra"]["correct_prompts"] <= 100
    assert strict["cells"]["stock"]["difference"] == {"value": 0.0, "ci95": [0.0, 0.0], "significant": False}
    titles = [column["title"] for column in results["columns"]]
    assert titles[1:4] == ["diversity", "colours in use", "places in use"]
    assert titles[4:] == ["Frechet distance to base", "kernel distance x1000 to base"]
    colors = results["columns"][2]["cells"]
    assert 1 <= colors["base"]["mean"] == colors["stock"]["mean"] <= 8
    distance = results["columns"][4]["cells"]
    assert set(distance) == {"tuned", "stock"}
    assert distance["stock"]["mean"] < 0.01 < distance["tuned"]["mean"]


def test_the_files_of_a_table(out: Path) -> None:
    markdown = (out / "table.md").read_text()
    assert markdown.startswith("|  | geneval/strict % ↑ | diversity ↑ | colours in use ↑ | places in use ↑ | Frechet")
    assert "| stock | " in markdown
    assert "2: " not in markdown.splitlines()[0]
    latex = (out / "table.tex").read_text()
    assert latex.count("\\\\") == 4
    assert "geneval/strict \\% $\\uparrow$" in latex
    with (out / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {(line["row"], line["metric"]) for line in lines} >= {("tuned", "diversity"), ("base", "geneval/strict %")}
    with Image.open(out / "grid-two.webp") as grid:
        assert grid.size == (150 + 3 * 160, 46 + 3 * 160)


def test_another_model_under_the_name_of_a_row_is_refused(
    out: Path, config: Config, sets: list[PromptSet], adapter: Path
) -> None:
    models = [find_model(parse_row(f"base={adapter}"), config)]
    client: Any = LocalClient(GenevalReward(score="graded"))
    with pytest.raises(ConfigError, match=r"--row base: .* has pictures of another model \(adapter differs\)"):
        evaluate_rows(config, out, models, sets, OPTIONS, client, draw=Drawing(sets))
    with pytest.raises(ConfigError, match="there is no row 'x'; choose from base"):
        evaluate_rows(config, out, models, sets, TableOptions(against="x"), client, draw=Drawing(sets))
    with pytest.raises(ConfigError, match=r"no reward 'genevl'; did you mean geneval\?; the service has geneval"):
        evaluate_rows(config, out, models, sets, TableOptions(["genevl"]), client, draw=Drawing(sets))


def test_a_changed_reward_scores_again(out: Path, config: Config, sets: list[PromptSet]) -> None:
    client: Any = LocalClient(Redness(), "redness")
    models = [find_model(parse_row("base=base"), config)]
    options = TableOptions(["redness"], diversity=False, grid=0)
    for version, asked in (("one", 4), ("one", 4), ("two", 8)):
        client.ranker.reward.version = version
        table = evaluate_rows(config, out, models, sets, options, client, draw=Drawing(sets))
        assert len(client.requests) == asked
    assert [column.title for column in table.columns] == ["redness/red_wins %"]


def test_workers_share_the_pictures_and_fill_one_folder(config: Config, sets: list[PromptSet], tmp_path: Path) -> None:
    model = find_model(parse_row("base=base"), config)
    counts = []
    for worker in range(2):
        before = len(list(tmp_path.rglob("*.png")))
        draw_missing(
            tmp_path, model, sets, lambda one: load_painter(one, "cpu"), batch_size=24, worker=worker, workers=2
        )
        counts.append(len(list(tmp_path.rglob("*.png"))) - before)
    assert counts == [4, 4]
    assert PictureFolder(tmp_path / "two").missing(sets[0].planned) == []


def test_options_that_cannot_work_are_told_before_anything_is_drawn(tmp_path: Path) -> None:
    wrong = TableOptions(against="x", fid=str(tmp_path / "none"), fid_features="map").find_problems(["a", "b"])
    assert [problem.split(":")[0] for problem in wrong] == ["--against", "--fid"]
    assert TableOptions(against="b", fid=str(tmp_path), fid_features="map").find_problems(["a", "b"]) == []
    needs = [
        one.startswith("--fid: Inception needs torch-fidelity") for one in TableOptions(fid="a").find_problems(["a"])
    ]
    assert needs == [True] * (not has_inception())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["base"], "'base' is not NAME=WHAT"),
        (["=x"], "'=x' is not NAME=WHAT"),
        (["a=x,steps=0"], "--row a: steps: Input should be greater than or equal to 1"),
        (["a=x,steps=4,guidance=nan"], "--row a: guidance: Input should be a finite number"),
        (["a=x,size=512"], "--row a: size is of a pipeline with many steps: give steps too"),
        (["a=x,sceduler=ddim"], "there is no sceduler; did you mean scheduler?"),
        (["a b=x", "a-b=x", "a b=y"], "--row: two are named 'a b'"),
        (["a=base,generator=x"], "generator is for an adapter"),
    ],
)
def test_a_row_that_is_written_wrong(rows: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rows(rows)
    assert message in str(caught.value)


def test_rows_are_read_as_they_are_written(tmp_path: Path, config: Config) -> None:
    row = parse_row("SD 1.5=org/model,steps=50,guidance=7.5,scheduler=ddim,lora=a,b.safetensors")

    assert (row.name, row.what, row.steps, row.guidance) == ("SD 1.5", "org/model", 50, 7.5)
    assert row.lora == "a,b.safetensors"
    assert row.folder.startswith("SD-1.5-")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ConfigError, match=r"--row a: there is neither a LoRA adapter nor a U-Net .*, or that of a diffusers pipeline"
    ):
        find_model(parse_row(f"a={tmp_path / 'empty'}"), config)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "unet": ["d", "U"]}')
    model = find_model(parse_row(f"a={broken}"), config)
    with pytest.raises(ConfigError, match=r"--row a: .*unet"):
        check_model(model)


def test_a_cut_line_costs_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    append_lines(file, [{"a": 1}])
    with file.open("a") as cut:
        cut.write('{"a": 2, "b')
    append_lines(file, [{"a": 3}])
    assert [line["a"] for line in read_lines(file)] == [1, 3]


def test_cells_against_a_plain_computation() -> None:
    values = {("a", "one"): 1.0, ("a", "two"): 3.0, ("b", "one"): 10.0, ("b", "two"): 10.0}
    other = {key: value - 1 for key, value in values.items()}
    by_task, by_prompt = make_cell(values, other, "tasks"), make_cell(values, other, "prompts")
    assert (by_task.mean, by_prompt.mean) == (6.0, 6.0)
    assert by_task.difference is not None
    assert by_task.difference == Difference(1.0, (1.0, 1.0), significant=True)
    # Task a has the means 1, 2, 2, 3 of its resamples, task b only 10: the deviation is that of their half.
    assert by_task.standard_error == pytest.approx(np.std([1, 2, 2, 3]) / 2, abs=0.01)
    many = np.random.default_rng(0).normal(size=400)
    cell = make_cell({("", str(i)): float(value) for i, value in enumerate(many)}, None, "prompts")
    assert cell.standard_error == pytest.approx(many.std() / 20, rel=0.05)


def test_a_mean_of_one_prompt_has_no_interval_and_no_mark() -> None:
    values = {("a", "1"): 1.0, ("a", "2"): 2.0, ("b", "3"): 3.0}
    reference = dict.fromkeys(values, 0.0)
    alone = make_cell(values, reference, "tasks")
    assert (alone.mean, alone.standard_error) == (2.25, None)
    assert alone.difference == Difference(2.25, None, False)
    together = make_cell(values, reference, "prompts")
    assert together.difference is not None
    assert together.difference.significant
    table = Table(["x", "y"], "y", [Column("p", "score", cells={"x": alone, "y": make_cell(reference, None, "tasks")})])
    assert "x,p,score,2.25,,2.25,,,False" in table.to_csv()
    assert "| x | **2.250** |" in table.to_markdown()
    same = make_cell(reference, None, "prompts").to_json()
    assert same["standard_error"] == 0.0, "a number that is 0 is a number"


def test_a_name_of_a_row_is_never_markup(out: Path) -> None:
    table = Table(["a_b|c & [/x]"], "a_b|c & [/x]", [])
    assert "a\\_b\\textbar{}c \\& [/x]" in table.to_latex()
    assert "| a_b\\|c & \\[/x] |" in table.to_markdown()


def test_a_reward_is_asked_about_the_sets_that_have_its_metadata(
    sets: list[PromptSet], config: Config, tmp_path: Path
) -> None:
    questions = {"prompt": "a cat", "metadata": {"vqa": [["Is there a cat?", "Yes"]], "skills": ["object"]}}
    (tmp_path / "questions.jsonl").write_text(json.dumps(questions))
    (tmp_path / "plain.jsonl").write_text(json.dumps({"prompt": "a cat"}))
    files = [f"{name}=file,path={tmp_path}/{name}.jsonl" for name in ("questions", "plain")]
    infos = [
        ModelInfo(name="geneval", needs_metadata=True, metadata_schema=GenevalReward.metadata_schema),
        ModelInfo(name="soft_tifa", needs_metadata=True, metadata_schema=SoftTifa.metadata_schema),
        ModelInfo(name="own", needs_metadata=True),
        ModelInfo(name="pickscore"),
    ]
    columns = {ShownMetric(info.name, None): info for info in infos}
    asked = [list(asked_rewards(columns, one)) for one in (*sets, *make_sets(files, config))]
    assert asked == [["geneval", "own", "pickscore"], ["soft_tifa", "own", "pickscore"], ["pickscore"]]
