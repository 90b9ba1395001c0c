"""Public prompt sets: GenEval's from its own rule, the others from files in their public layout."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pandas
import pytest
from support import ROOT

from drpo.cli import app
from drpo.config import PromptsConfig
from drpo.data.prompts import PROMPT_SOURCES, PromptRecord, find_source, load_prompts
from drpo.data.prompts.overlap import find_overlap, fold
from drpo.data.prompts.sources import geneval_templates, pickapic_v2
from drpo.errors import ConfigError
from drpo_rewards.rewards.vlm.soft_tifa import read_questions

OFFICIAL_GENEVAL = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"  # evaluation_metadata.jsonl
OFFICIAL_PARTI = ROOT.parent / "shared" / "data" / "parti" / "PartiPrompts.tsv"


def load(source: str, **settings: Any) -> list[PromptRecord]:
    return load_prompts(PromptsConfig(source=source, **settings))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRPO_DATA", str(tmp_path))
    return tmp_path


def test_geneval_equals_the_official_file_byte_for_byte() -> None:
    records = load("geneval")
    text = "".join(json.dumps(record.metadata) + "\n" for record in records)
    assert hashlib.sha256(text.encode()).hexdigest() == OFFICIAL_GENEVAL
    assert Counter(record.task for record in records) == {
        "single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100,
    }  # fmt: skip
    assert all(record.prompt == record.metadata["prompt"] for record in records if record.metadata)


@pytest.mark.parametrize(
    ("task", "formed", "official", "without_twins"),
    [
        ("single_object", 80, 80, 0),
        ("two_object", 6_320, 99, 6_122),
        ("counting", 240, 80, 160),
        ("colors", 790, 94, 696),
        ("position", 25_280, 100, 25_082),
        pytest.param("color_attr", 554_580, 100, 554_380, marks=pytest.mark.thorough),
    ],
)
def test_what_the_templates_form_and_what_is_left_to_train_on(
    task: str, formed: int, official: int, without_twins: int
) -> None:
    everything = {entry["prompt"] for entry in geneval_templates.form_all(task)}
    tested = [record for record in load("geneval") if record.task == task]
    assert len(everything) == formed
    assert len(everything & {record.prompt for record in tested}) == official
    if task == "single_object":
        return
    left = load("geneval_train", tasks=(task,))
    removed = everything - {record.prompt for record in left}
    assert removed == {record.prompt for record in tested} | mirrored(tested)
    assert find_overlap(left, tested) == []
    assert len(left) == without_twins


def mirrored(records: list[PromptRecord]) -> set[str]:
    """Mirror twins by words alone: what stands before and after "and" or the relation, exchanged."""
    opposite = {"and": "and", "left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    twins = set()
    for record in records:
        for word, other in opposite.items():
            first, found, second = record.prompt.removeprefix("a photo of ").partition(f" {word} ")
            if found:
                twins.add(f"a photo of {second} {other} {first}")
    return twins


def test_nothing_is_left_of_single_object_but_other_phrasings() -> None:
    with pytest.raises(ConfigError, match=r"nothing is left of single_object.*prompts\.split=rephrased"):
        load("geneval_train", tasks=("single_object",))
    with pytest.raises(ConfigError, match="no task 'colours' in geneval_train; choose from single_object, two_object"):
        load("geneval_train", tasks=("colors", "colours"))
    rephrased = load("geneval_train", split="rephrased", tasks=("single_object", "colors"))
    assert Counter(record.task for record in rephrased) == {"single_object": 960, "colors": 696}
    assert len({fold(record.prompt) for record in rephrased}) == 1656
    assert find_overlap(rephrased, load("geneval")) == []
    assert "a drawing of an elephant" in {record.prompt for record in rephrased}
    assert load("geneval_train", split="test") == load("geneval")


def test_geneval2_has_questions_for_soft_tifa(data: Path) -> None:
    (data / "geneval2").mkdir()
    file = data / "geneval2" / "geneval2_data.jsonl"
    entry = {
        "prompt": "two brown dogs",
        "atom_count": 3,
        "vqa_list": [["How many dogs are in the image?", "two"], ["Are the dogs brown?", "Yes"]],
        "skills": ["count", "attribute"],
    }
    lines = [json.dumps(entry | {"prompt": f"{entry['prompt']} {number}"}) for number in range(800)]
    file.write_text("\n".join(lines))
    records = load("geneval2")
    assert len(records) == 800
    metadata = {"vqa": entry["vqa_list"], "skills": entry["skills"]}
    assert records[1] == PromptRecord("two brown dogs 1", metadata, "3 atoms")
    assert read_questions(metadata) == [tuple(pair) for pair in entry["vqa_list"]]
    file.write_text("\n".join(lines[:799]))
    with pytest.raises(ConfigError, match="has 799 prompts; GenEval 2 has 800"):
        load("geneval2")
    file.write_text("\n".join([*lines, json.dumps(entry | {"skills": []}), json.dumps(entry | {"atom_count": "3"})]))
    with pytest.raises(ConfigError, match=r':801: needs "vqa_list" and "skills"[\s\S]*:802: needs "atom_count"'):
        load("geneval2")


def test_parti_is_read_without_quoting(data: Path) -> None:
    (data / "parti").mkdir()
    rows = ["Prompt\tCategory\tChallenge\tNote", '"A B" on a wall\tArts\tBasic\t', " outer \tAnimals\tComplex\tnote"]
    (data / "parti" / "PartiPrompts.tsv").write_text("\n".join(rows))
    assert load("parti") == [PromptRecord('"A B" on a wall', task="Arts"), PromptRecord(" outer ", task="Animals")]
    assert [record.task for record in load("parti", task_column="Challenge")] == ["Basic", "Complex"]
    with pytest.raises(ConfigError, match="takes Category or Challenge"):
        load("parti", task_column="Note")


@pytest.mark.skipif(not OFFICIAL_PARTI.is_file(), reason="the official file is not part of this project")
def test_the_official_parti_file(data: Path) -> None:
    (data / "parti").mkdir()
    (data / "parti" / "PartiPrompts.tsv").write_bytes(OFFICIAL_PARTI.read_bytes())
    records = load("parti")
    assert len({record.prompt for record in records}) == len(records) == 1632
    assert Counter(record.task for record in records)["World Knowledge"] == 214
    assert Counter(record.task for record in load("parti", task_column="Challenge"))["Imagination"] == 150
    assert len([record for record in records if record.prompt.startswith('"G I G G L E"')]) == 1
    assert len([record for record in records if record.prompt != record.prompt.strip()]) == 10


def write_pickapic(folder: Path, test: pandas.DataFrame) -> None:
    """The public layout: shards whose names have hashes, and columns that are not read."""
    (folder / "data").mkdir(parents=True)
    test.to_parquet(folder / "data" / "test_unique-00000-of-00001-e852c19e.parquet")
    for shard, captions in enumerate((["new", "new", "Caption 3 "], ["other", None, "  ", "caption 499"])):
        frame = pandas.DataFrame({"caption": captions, "user_id": 1})
        frame.to_parquet(folder / "data" / f"train-{shard:05}-of-00002-{shard}.parquet")


def captions(count: int = 500, **columns: Any) -> pandas.DataFrame:
    return pandas.DataFrame({"caption": [f"caption {number}" for number in range(count)], "has_label": True, **columns})


@pytest.mark.parametrize(
    ("test", "rule"),
    [
        (captions(has_label=[number < 424 for number in range(500)], label_0=0.5), "has_label"),
        (captions(label_0=[1.0, 0.0] * 212 + [0.5] * 76), "label_0"),
        (captions(424, label_0=0.5), "has_label"),
    ],
)
def test_the_424_prompts_of_the_paper_by_the_rule_that_gives_them(
    data: Path, caplog: pytest.LogCaptureFixture, test: pandas.DataFrame, rule: str
) -> None:
    write_pickapic(data / "pickapic_v2", test)
    with caplog.at_level(logging.INFO):
        assert [record.prompt for record in load("pickapic_v2", split="test")] == list(test["caption"][:424])
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert rule in caplog.text


def test_if_no_rule_gives_424_the_counts_are_told(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pickapic(data / "pickapic_v2", captions(label_0=[0.5] * 100 + [1.0] * 400))
    assert len(load("pickapic_v2", split="test")) == 500
    assert "no rule gives the paper's 424" in caplog.text
    assert "400 rows whose label_0 is 0 or 1" in caplog.text
    rows = [
        {"caption": f" c{number % 424}{' ' * (number // 424)}", "has_label": True, "label_0": 0.5}
        for number in range(500)
    ]
    rule, chosen = pickapic_v2.choose_test_captions(rows)
    assert (rule, len(chosen)) == ("captions that differ in more than white space around them", 424)


def test_pickapic_trains_on_no_caption_of_its_test(data: Path) -> None:
    write_pickapic(data / "pickapic_v2", captions(label_0=0.5))
    assert [record.prompt for record in load("pickapic_v2")] == ["new", "other"]
    (data / "pickapic_v2" / "data" / "train-00001-of-00002-1.parquet").unlink()
    with pytest.raises(ConfigError, match=r"1 of 2 parts of data/train.*drpo prompts download pickapic_v2"):
        load("pickapic_v2")


def test_drawbench_and_hpdv2(data: Path) -> None:
    (data / "drawbench" / "data").mkdir(parents=True)
    frame = pandas.DataFrame({"prompts": ["A red car.", "Rainbow"], "category": [0, 10]})
    frame.to_parquet(data / "drawbench" / "data" / "test-00000-of-00001.parquet")
    assert load("drawbench") == [PromptRecord("A red car.", task="Colors"), PromptRecord("Rainbow", task="Text")]
    folder = data / "hpdv2" / "benchmark"
    folder.mkdir(parents=True)
    for style in ("anime", "concept-art", "paintings", "photo"):
        (folder / f"{style}.json").write_text(json.dumps([f"{style} 1", f"{style} 2"]))
    assert [record.prompt for record in load("hpdv2", tasks=("photo",))] == ["photo 1", "photo 2"]
    (folder / "photo.json").write_text('["a", "", "b \\ud800"]')
    with pytest.raises(ConfigError, match=r"photo.json:entry 2: .*\n.*photo.json:entry 3: .*surrogate"):
        load("hpdv2")


@pytest.mark.parametrize("name", ["pickapic_v2", "parti", "drawbench", "hpdv2"])
def test_a_set_that_was_not_downloaded_says_how(data: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"drpo prompts download {name}"):
        load(name, split="test")


def test_every_source_says_what_it_is() -> None:
    for name in PROMPT_SOURCES:
        source = find_source(name)
        assert source.about
        if source.origin is not None:
            assert source.origin.homepage.startswith("https://")
            assert source.origin.licence
            assert source.origin.revision
            assert all(file.url or source.origin.repository for file in source.origin.files)


def test_the_list_names_source_revision_and_licence_whole(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")  # narrower than an address
    with pytest.raises(SystemExit) as ended:
        app(["prompts", "list"])
    printed = "".join(capsys.readouterr().out.split())
    assert not ended.value.code
    for origin in filter(None, (find_source(name).origin for name in PROMPT_SOURCES)):
        named = f"{origin.homepage} at {origin.revision} licence: {origin.licence}"
        assert "".join(named.split()) in printed
