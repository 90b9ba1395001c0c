"""Declared files: which ones are chosen, which are missing, where they come from, and that the README agrees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drpo_rewards import rewards
from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.files import hub
from drpo_rewards.rewards.files.model_files import BPE, CONFIG, WEIGHTS, ModelFiles, choose, missing

README = Path(rewards.__file__).parent / "README.md"
FILES = ModelFiles("model", "owner/name", (CONFIG, WEIGHTS, BPE), "MIT", 1.0)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["pytorch_model.bin", "model.safetensors", "flax_model.msgpack"], ["model.safetensors"]),
        (["pytorch_model.bin", "onnx/model.safetensors"], ["pytorch_model.bin"]),
        (
            ["model-1.safetensors", "model.safetensors.index.json"],
            ["model.safetensors.index.json", "model-1.safetensors"],
        ),
        (["model-1.safetensors", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["config.json"], []),
    ],
)
def test_the_first_complete_alternative_is_chosen(present: list[str], chosen: list[str]) -> None:
    assert choose(WEIGHTS, present) == chosen


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = touch(tmp_path, "config.json", "vocab.json")
    assert missing(FILES, folder) == [
        "model.safetensors or model.safetensors.index.json and model-*.safetensors",
        "merges.txt",
    ]
    touch(folder, "model.safetensors", "merges.txt")
    assert missing(FILES, folder) == []
    with pytest.raises(WeightsError, match=r"no tokenizer\.json or vocab\.json and merges\.txt in the folder"):
        hub.find(FILES, str(touch(tmp_path / "other", "config.json", "model.safetensors")))


def test_the_index_names_the_shards(tmp_path: Path) -> None:
    folder = touch(tmp_path, "config.json", "tokenizer.json", "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing(FILES, folder) == ["model-2.safetensors", "model-3.safetensors"]


def test_sources_of_files(tmp_path: Path) -> None:
    tokenizer = ModelFiles("tokenizer", "owner/words", (BPE,), "MIT", 0.1, subfolder="words")
    bare, whole = touch(tmp_path / "bare"), tmp_path / "whole"
    touch(whole / "words", "vocab.json")
    assert (
        tokenizer.source({})
        == tokenizer.source({"model": str(bare)})
        == tokenizer.source({"model": "a/b"})
        == "owner/words"
    )
    assert tokenizer.source({"model": str(whole)}) == str(whole / "words")
    assert tokenizer.source({"model": str(whole), "tokenizer": "c/d"}) == "c/d"
    assert FILES.source({"model": "a/b@v1"}) == "a/b@v1"


def test_hub_ids() -> None:
    assert hub.split_id("owner/name") == ("owner/name", None)
    assert hub.split_id("owner/name@refs/pr/1") == ("owner/name", "refs/pr/1")
    with pytest.raises(WeightsError, match="neither a folder here nor an id"):
        hub.split_id("no/such/folder")


@pytest.mark.parametrize("name", sorted(rewards.CATALOGUE))
def test_every_reward_declares_its_files_and_the_readme_agrees(name: str) -> None:
    cls = rewards.load_class(name)
    needed = rewards.needed_files(name, getattr(cls, "download_options", {}))
    rows = [line for line in README.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert rows, f"give {name} a row in the table of services/drpo_rewards/rewards/README.md"
    for model, source in needed[:1]:
        assert f"`{source}`" in rows[0]
        assert model.license in rows[0]
        assert f"| {model.gigabytes:g} |" in rows[0]
    assert all(
        f"`{files.option}`" in README.read_text() and f"`{source}`" in README.read_text() for files, source in needed
    )


def test_the_download_command_has_only_options_that_matter() -> None:
    command = rewards.download_command
    assert command("pickscore", {"device": "cuda", "dtype": "float16"}) == "drpo-rewards download pickscore"
    assert command("hpsv2", {"version": "2.1"}) == "drpo-rewards download hpsv2"
    assert command("hpsv2", {"version": "2.0", "device": "cpu"}) == "drpo-rewards download hpsv2 --option version=2.0"
    assert command("clip", {"model": "a/b"}) == "drpo-rewards download clip --option model=a/b"
    assert rewards.needed_files("geneval", {}) == []
